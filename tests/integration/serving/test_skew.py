"""The skew watch, as a job runs it: a Feast store online and offline, a log, the command line."""

import json
import shutil
from contextlib import closing

import pytest

from onepiece.cli import main
from onepiece.events.anchors import AnchorRecipe
from onepiece.events.history import HistoryRecipe
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.backfill import backfill
from onepiece.serving.skew_report import SkewReport

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HISTORY, ANCHORS = HistoryRecipe(), AnchorRecipe()


@pytest.fixture
def watched(platform, tmp_path, capsys):
    """Backfills the store's offline part and runs the job: its exit code and report."""

    def watched(history=HISTORY, anchors=ANCHORS, **options):
        store = tmp_path / "store"
        shutil.copytree(platform.folder / "store", store)
        with closing(SqliteEventLog.open(platform.folder / "log")) as log:
            backfill(
                log,
                platform.module.make_catalogue((platform.module.NEW_ITEM,)),
                history_recipe=history,
                anchor_recipe=anchors,
                from_ms=platform.module.T0_MS,
                to_ms=platform.end_ms,
                out=store / "offline",
                profiles=platform.profiles,
            )
        code = main(
            [
                *("serving", "skew", "--json", "--log", str(platform.folder / "log")),
                *("--store", str(store), "--item-tables", str(platform.folder / "item-tables")),
                *("--bundle", str(platform.folder / "bundle"), "--out", str(tmp_path / "out")),
                *(text for name, value in options.items() for text in (f"--{name}", str(value))),
            ]
        )
        return code, SkewReport.model_validate_json(capsys.readouterr().out)

    return watched


def test_a_job_finds_every_context_equal_and_exits_0(platform, watched, tmp_path):
    code, report = watched()

    assert code == 0
    assert report.num_by_result == {
        "equal": report.num_checked,
        "lag": 0,
        "late_event": 0,
        "unexplained": 0,
    }
    assert report.num_checked + report.num_left_out["no_model"] == platform.num_requests
    assert report.num_checked > 20
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.prom",
        "skew.html",
        "skew.json",
    ]
    assert json.loads((tmp_path / "out" / "skew.json").read_text()) == report.model_dump(
        mode="json"
    )


def test_anchors_backfilled_with_another_recipe_are_an_alarm(watched):
    code, report = watched(anchors=AnchorRecipe(max_items_per_group=1))

    assert code == 1
    assert set(report.num_by_part) == {"anchors"}
    assert report.num_by_part["anchors"]["unexplained"] == report.num_by_result["unexplained"] > 0


def test_histories_backfilled_with_another_recipe_are_an_alarm(watched):
    code, report = watched(history=HistoryRecipe(max_recent_events=1, max_memory_events=1))

    assert code == 1
    assert set(report.num_by_part) == {"recent", "memory"}


def test_a_share_that_is_allowed_exits_0(watched):
    code, report = watched(
        history=HistoryRecipe(max_memory_events=1), **{"max-mismatch-share": 1.0, "sample": 5}
    )

    assert code == 0
    assert report.num_checked == 5
