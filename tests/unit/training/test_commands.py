import argparse
import json
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from onepiece.bundle import load_bundle
from onepiece.errors import InvalidInput, OutputExists
from onepiece.training.commands import add_commands
from onepiece.training.curve import curve_paths


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(arguments)
    return int(args.run(args))


@pytest.fixture(scope="module")
def bundle(repository: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    assert _run(["run", "--recipe", str(tiny), "--data", str(data), "--out", str(out)]) == 0
    return out


def test_run_writes_a_bundle_and_its_curve_beside_it(bundle: Path) -> None:
    json_path, png_path = curve_paths(bundle)

    curve = json.loads(json_path.read_text())

    assert len(curve["losses"]) == load_bundle(bundle).provenance["num_steps"]
    assert load_bundle(bundle).feature_histograms.num_requests > 0
    assert png_path.read_bytes().startswith(b"\x89PNG")


def test_evaluate_gives_the_metrics_that_the_bundle_says(
    bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["evaluate", "--bundle", str(bundle), "--data", str(data), "--json"]) == 0

    printed = json.loads(capsys.readouterr().out)

    assert printed["metrics"] == pytest.approx(dict(load_bundle(bundle).metrics))
    assert printed["version"] == load_bundle(bundle).version


def test_the_same_recipe_and_examples_give_the_same_version(
    bundle: Path, repository: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    out = tmp_path / "again"

    _run(["run", "--recipe", str(tiny), "--data", str(data), "--out", str(out), "--json"])

    assert json.loads(capsys.readouterr().out)["version"] == load_bundle(bundle).version


def test_another_seed_gives_another_version(
    bundle: Path, repository: Path, data: Path, tmp_path: Path
) -> None:
    tiny = (repository / "ray_jobs" / "recipes" / "tiny.yaml").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny + "seed: 1\n")

    _run(["run", "--recipe", str(recipe), "--data", str(data), "--out", str(tmp_path / "b")])

    assert load_bundle(tmp_path / "b").version != load_bundle(bundle).version


def test_a_bundle_is_never_overwritten(bundle: Path, repository: Path, data: Path) -> None:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"

    with pytest.raises(OutputExists, match=str(bundle)):
        _run(["run", "--recipe", str(tiny), "--data", str(data), "--out", str(bundle)])


def test_a_training_that_may_stop_early_says_when_and_draws_it(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    tiny = (repository / "ray_jobs" / "recipes" / "tiny.yaml").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny + "epochs: 3\nstopping: {metric: mrr_order_shelf, patience_epochs: 3}\n")

    _run(["run", "--recipe", str(recipe), "--data", str(data), "--out", str(tmp_path / "b")])

    curve = json.loads(curve_paths(tmp_path / "b")[0].read_text())
    values = [one["metrics"]["mrr_order_shelf"] for one in curve["validations"]]
    bundle = load_bundle(tmp_path / "b")
    assert len(values) == 3
    assert bundle.provenance["best_epoch"] == values.index(max(values)) + 1
    assert bundle.metrics["mrr_order_shelf"] == max(values)


def test_a_stream_by_day_says_how_each_day_went(
    repository: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (repository / "ray_jobs" / "recipes" / "tiny.yaml").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny + "batch_order: by_day\n")
    out = tmp_path / "b"

    _run(["run", "--recipe", str(recipe), "--data", str(data), "--out", str(out)])

    days = json.loads(curve_paths(out)[0].read_text())["days"]
    printed = capsys.readouterr().out
    assert len(days) > 2
    assert all(f"{one['day']} mrr_order_shelf" in printed for one in days)


def test_training_goes_on_from_yesterdays_bundle_and_is_counted(
    repository: Path, data: Path, bundle: Path, tmp_path: Path
) -> None:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    before = REGISTRY.get_sample_value("onepiece_training_steps_total")
    places = ["--recipe", str(tiny), "--data", str(data), "--out", str(tmp_path / "b")]

    _run(["run", *places, "--start-from", str(bundle), "--device", "cpu"])

    child = load_bundle(tmp_path / "b")
    assert child.provenance["parent_version"] == load_bundle(bundle).version
    after = REGISTRY.get_sample_value("onepiece_training_steps_total")
    assert after - before == child.provenance["num_steps"]
    assert REGISTRY.get_sample_value("onepiece_training_tokens_per_second") > 0
    assert 0 <= REGISTRY.get_sample_value("onepiece_training_data_wait_ratio") <= 1
    assert 0 < REGISTRY.get_sample_value("onepiece_training_model_flops_ratio") < 1


def test_a_device_that_is_not_there_is_refused(
    repository: Path, data: Path, tmp_path: Path
) -> None:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    places = ["--recipe", str(tiny), "--data", str(data), "--out", str(tmp_path / "b")]

    with pytest.raises(InvalidInput, match="give auto, cpu or cuda"):
        _run(["run", *places, "--device", "tpu"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "given are no examples; give --data and --test"),
        (["--data", "d"], "given are --data; give --data and --test"),
        (["--data", "d", "--test", "t", "--until-ms", "1"], "there is no --shop"),
        (["--shop", "SHOP"], "--until-ms None"),
        (["--shop", "SHOP", "--until-ms", "1", "--test-days", "0"], "1 day or more"),
        (["--shop", "SHOP", "--until-ms", "1", "--data", "d", "--test", "t"], "test, --shop; give"),
        (["--shop", "SHOP", "--until-ms", "1", "--source", "s"], "given are --source, --shop"),
    ],
)
def test_ablate_takes_examples_or_a_shop(
    repository: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    for part in ("log", "store", "catalogue.parquet", "item_tables"):
        (tmp_path / part).mkdir()
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    ablate = ["ablate", "--table", "table6", "--recipe", str(tiny), "--out", str(tmp_path / "out")]

    with pytest.raises(InvalidInput, match=message):
        _run([*ablate, *(str(tmp_path) if one == "SHOP" else one for one in given)])


def test_ablate_trains_each_row_and_goes_on_where_it_stopped(
    repository: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = repository / "ray_jobs" / "recipes" / "tiny.yaml"
    given = ["--recipe", str(tiny), "--data", str(data), "--test", str(data), "--seeds", "1"]
    ablate = ["ablate", "--table", "table6", *given, "--out", str(tmp_path / "out"), "--json"]

    assert _run([*ablate, "--rows", "C = 1"]) == 0
    trained_ns = (tmp_path / "out" / "bundles" / "c-1-seed0").stat().st_mtime_ns
    capsys.readouterr()
    assert _run([*ablate, "--rows", "C = 1", "C = 12"]) == 0

    lines = json.loads(capsys.readouterr().out)
    assert [line["row"] for line in lines] == ["C = 1", "C = 12"]
    assert lines[0]["figures"]["C-AUC"]["metric"] == "auc_click"
    assert lines[1]["figures"]["C-AUC"]["is_alike"] in (True, False)
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert lines[0]["from_row_before"] is None
    assert lines[1]["from_row_before"] == comparison[1]["against_first"]
    assert (tmp_path / "out" / "bundles" / "c-1-seed0").stat().st_mtime_ns == trained_ns
    assert "| C = 12 | 0.927 |" in (tmp_path / "out" / "ablation.md").read_text()
