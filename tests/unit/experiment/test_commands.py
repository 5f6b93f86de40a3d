import argparse
import json

import pytest

from onepiece.errors import InvalidInput, InvalidRecipe, InvalidRequest, NotFound, OutputExists
from onepiece.events.schema import DAY_MS
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.commands import add_commands
from onepiece.experiment.plan import ExperimentPlan, demo_plan, dump_plan
from onepiece.experiment.report import ExperimentReport


def run(*arguments):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(argument) for argument in arguments])
    return args.run(args)


@pytest.fixture
def plan_path(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(dump_plan(demo_plan(7)))
    return path


@pytest.fixture
def log_folder(tmp_path, plan, shop):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=3)
    log.append(shop(plan, num_users=60))
    log.close()
    return tmp_path / "log"


@pytest.fixture
def times(phase):
    return (
        *("--from-ms", phase.from_ms, "--to-ms", phase.to_ms),
        *("--pre-from-ms", phase.pre_from_ms),
    )


def test_the_printed_plan_is_the_demos(capsys, tmp_path):
    assert run("plan", "--seed", 7) == 0

    (tmp_path / "plan.yaml").write_text(capsys.readouterr().out)
    assert run("assign", "--plan", tmp_path / "plan.yaml", "--user", "1031") == 0


def test_assign_says_arm_and_bucket(capsys, plan_path):
    run("assign", "--plan", plan_path, "--user", "1031", "--json")
    result = json.loads(capsys.readouterr().out)
    run("assign", "--plan", plan_path, "--user", "1031")
    text = capsys.readouterr().out

    assert result["is_enrolled"]
    assert set(result["arms"]) == set(result["buckets"]) == {"retrieval", "prerank"}
    assert f"retrieval: {result['arms']['retrieval']} (retriever " in text
    assert f"bucket {result['buckets']['prerank']})" in text


def test_assign_says_who_takes_no_part(capsys, tmp_path):
    plan = ExperimentPlan.model_validate({**demo_plan(7).model_dump(), "traffic_bp": 0})
    (tmp_path / "plan.yaml").write_text(dump_plan(plan))

    run("assign", "--plan", tmp_path / "plan.yaml", "--user", "1031")

    out = capsys.readouterr().out
    assert "takes no part" in out
    assert "prerank: popular (ranker popular" in out


def test_a_report_is_written_and_its_table_printed(capsys, plan_path, log_folder, times, tmp_path):
    out = tmp_path / "out"

    code = run("report", "--log", log_folder, "--plan", plan_path, *times, "--out", out)

    printed = capsys.readouterr().out
    assert code == 0
    assert printed.startswith("Experiment demo, 2017-10-31 to 2017-11-06 (7 days), 60 users\n")
    assert f"report: {out / 'report.html'}" in printed
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_a_report_as_json_is_the_file(capsys, plan_path, log_folder, times, tmp_path):
    about, truth = tmp_path / "about.json", tmp_path / "truth.json"
    about.write_text('{"seed": 7, "shopper": {"patience": "0.85"}}')
    truth.write_text(
        '{"cells": [{"arms": {"retrieval": "popular", "prerank": "popular"}, "num_users": 2, '
        '"gmv_per_user": 3.0, "mrr_at_20": 0.2}], "effects": [{"split": "prerank", '
        '"arm": "onepiece", "absolute": 1.0, "relative": 0.5}]}'
    )  # fmt: skip
    more = ("--about", about, "--truth", truth, "--json", "--out", tmp_path / "out")

    run("report", "--log", log_folder, "--plan", plan_path, *times, *more)

    printed = ExperimentReport.model_validate_json(capsys.readouterr().out)
    written = (tmp_path / "out" / "report.json").read_text()
    assert printed == ExperimentReport.model_validate_json(written)
    assert printed.provenance.seed == 7
    assert (printed.phase.from_ms, printed.phase.pre_from_ms) == (times[1], times[5])
    assert printed.phase.max_late_ms == DAY_MS
    assert printed.truth.effect("prerank", "onepiece").relative == 0.5


def test_a_taken_folder_is_refused_before_anything_is_read(plan_path, times, tmp_path):
    (tmp_path / "out").mkdir()
    missing = tmp_path / "no-log"

    with pytest.raises(OutputExists):
        run("report", "--log", missing, "--plan", plan_path, *times, "--out", tmp_path / "out")


def test_bad_arguments_are_refused_and_leave_nothing(plan_path, log_folder, times, tmp_path):
    out = ("--out", tmp_path / "out")
    seconds = ("--from-ms", 1_510_000_000, "--to-ms", 1_511_000_000)
    empty = ("--from-ms", 1_600_000_000_000, "--to-ms", 1_600_000_000_001)
    (tmp_path / "bad.yaml").write_text("name: x")

    with pytest.raises(NotFound):
        run("report", "--log", tmp_path / "none", "--plan", plan_path, *times, *out)
    with pytest.raises(NotFound, match="no exposure"):
        run("report", "--log", log_folder, "--plan", plan_path, *empty, *out)
    with pytest.raises(InvalidInput, match="not seconds"):
        run("report", "--log", log_folder, "--plan", plan_path, *seconds, *out)
    with pytest.raises(InvalidRecipe):
        run("assign", "--plan", tmp_path / "bad.yaml", "--user", "1")
    with pytest.raises(InvalidRequest):
        run("assign", "--plan", plan_path, "--user", "a\nb")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["plan", "assign", "report"])
def test_help_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        run(verb, "--help")

    assert caught.value.code == 0
    assert f"example: onepiece experiment {verb}" in capsys.readouterr().out
