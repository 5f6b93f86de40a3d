import json
from pathlib import Path

import numpy as np
import pytest

from onepiece.datasets.event_files import write_event_data
from onepiece.datasets.planted_feed import PlantedFeed, planted_feed
from onepiece.errors import InvalidInput, NotFound
from onepiece.training.compare import Contender, compare
from onepiece.training.compare_data import contenders_of, feed_floors
from onepiece.training.compare_report import table, write_report
from onepiece.training.log_data import Shop

RECIPE = """
context: {max_recent_tokens: 4, max_memory_tokens: 0, max_anchor_tokens: %d}
feed: {%s}
model: {kind: sasrec, task: click, width: 8, num_layers: 1}
losses: {retrieval_weight: 1.0, catalogue: {num_negatives: null}}
epochs: 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny feed's events and three recipes."""
    folder = tmp_path_factory.mktemp("compare")
    write_event_data(planted_feed(PlantedFeed(40, 3, 4)), folder / "events")
    (folder / "plain.yaml").write_text(RECIPE % (0, ""))
    (folder / "same_context.yaml").write_text(RECIPE % (0, "") + "batch_size: 16\n")
    (folder / "anchored.yaml").write_text(RECIPE % (2, "item_to_item: {}"))
    return folder


def _contenders(place: Path, *names: str, out: str = "out") -> list[Contender]:
    paths = [str(place / f"{name}.yaml") for name in names]
    return contenders_of(paths, events=place / "events", data=None, test=None, out=place / out)


def test_recipes_of_one_context_share_their_examples(place: Path):
    plain, same, anchored = _contenders(place, "plain", "same_context", "anchored")

    assert plain.data == same.data
    assert plain.data != anchored.data
    assert plain.data.is_dir()


def test_every_recipe_meets_the_same_requests_and_the_first_is_the_yardstick(place: Path):
    contenders = _contenders(place, "plain", "anchored")

    outcomes = compare(contenders, floors=feed_floors(contenders), seeds=[0, 1], out=place / "out")

    by_name = {one.name: one for one in outcomes}
    assert list(by_name) == ["popular", "item-to-item", "plain", "anchored"]
    assert by_name["plain"].against_first is None
    assert by_name["plain"].metrics["ndcg_10"].num_seeds == 2
    difference = by_name["anchored"].against_first
    means = [by_name[name].metrics["ndcg_10"].mean for name in ("anchored", "plain")]
    assert difference.value == pytest.approx(means[0] - means[1])
    assert difference.num_users == 40


def test_a_comparison_goes_on_with_the_runs_that_are_missing(place: Path):
    contenders = _contenders(place, "plain", out="again")
    started: list[tuple[str, int]] = []

    def compared(*seeds: int):
        return compare(
            contenders,
            floors={},
            seeds=seeds,
            out=place / "again",
            on_run=lambda name, seed: started.append((name, seed)),
        )

    compared(0)
    (outcome,) = compared(0, 1)

    assert started == [("plain", 0), ("plain", 1)]
    assert outcome.metrics["ndcg_10"].num_seeds == 2


def test_a_changed_recipe_is_not_taken_for_the_one_that_was_trained(place: Path):
    (plain,) = _contenders(place, "plain", out="changed")
    compare([plain], floors={}, seeds=[0], out=place / "changed")
    other = plain.recipe.model_copy(update={"batch_size": 8})

    with pytest.raises(InvalidInput, match="another recipe than plain"):
        compare(
            [Contender("plain", other, plain.data, plain.test)],
            floors={},
            seeds=[0],
            out=place / "changed",
        )


def test_other_events_are_not_taken_for_those_that_examples_were_built_from(place: Path):
    (plain,) = _contenders(place, "plain", out="moved")
    compare([plain], floors={}, seeds=[0], out=place / "moved")
    write_event_data(planted_feed(PlantedFeed(40, 3, 4, seed=1)), place / "others")
    write_event_data(planted_feed(PlantedFeed(40, 3, 4)), place / "copy")

    def again(events: str) -> Contender:
        (one,) = contenders_of(
            [str(place / "plain.yaml")],
            events=place / events,
            data=None,
            test=None,
            out=place / "moved",
        )
        return one

    assert again("copy") == plain
    other = again("others")
    assert other.data != plain.data
    assert other.test != plain.test
    with pytest.raises(InvalidInput, match="trained on other examples"):
        compare([other], floors={}, seeds=[0], out=place / "moved")


def test_two_contenders_of_one_name_and_no_seeds_are_refused(place: Path):
    (plain,) = _contenders(place, "plain")

    with pytest.raises(InvalidInput, match="a name of its own"):
        compare([plain, plain], floors={}, seeds=[0], out=place / "out")
    with pytest.raises(InvalidInput, match="at least one recipe and seed"):
        compare([plain], floors={}, seeds=[], out=place / "out")


@pytest.mark.parametrize("given", [{}, {"data": "d"}, {"events": "e", "data": "d", "test": "t"}])
def test_data_must_be_named_one_way(place: Path, given: dict[str, str]):
    paths = {name: Path(given[name]) if name in given else None for name in ("events", "data")}
    test = Path(given["test"]) if "test" in given else None

    with pytest.raises(InvalidInput, match="--events"):
        contenders_of([str(place / "plain.yaml")], test=test, out=place / "x", **paths)


def test_the_report_has_every_model_and_its_picture(place: Path):
    contenders = _contenders(place, "plain", "anchored")
    outcomes = compare(contenders, floors=feed_floors(contenders), seeds=[0, 1], out=place / "out")

    write_report(outcomes, place / "report")

    text = (place / "report" / "comparison.md").read_text()
    document = json.loads((place / "report" / "comparison.json").read_text())
    assert text == table(outcomes)
    assert all(f"| {one.name} |" in text for one in outcomes)
    assert [one["name"] for one in document] == [one.name for one in outcomes]
    assert (place / "report" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_item_to_item_needs_lists_and_popularity_does_not(place: Path):
    assert list(feed_floors(_contenders(place, "plain"))) == ["popular"]
    floors = feed_floors(_contenders(place, "anchored"))
    assert np.isclose(
        floors["item-to-item"].values_R.mean(), floors["item-to-item"].metrics["ndcg_10"]
    )


def test_a_comparison_names_one_kind_of_data(place: Path):
    with pytest.raises(InvalidInput, match="only one of these"):
        contenders_of(
            [str(place / "plain.yaml")],
            events=place / "events",
            data=place / "events",
            test=place / "events",
            out=place / "out",
        )


def test_a_shops_folder_must_be_whole(tmp_path: Path):
    (tmp_path / "log").mkdir()

    with pytest.raises(NotFound, match=r"no store, catalogue\.parquet, item_tables"):
        Shop(tmp_path, until_ms=0, test_days=1)
