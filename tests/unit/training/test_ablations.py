import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from onepiece.datasets.catalogue_file import read_catalogue, write_catalogue
from onepiece.errors import InvalidInput, InvalidRecipe
from onepiece.events.anchors import AnchorRecipe
from onepiece.events.history import HistoryRecipe
from onepiece.events.schema import DAY_MS
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.backfill import backfill
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.feast_store import FeastStore
from onepiece.parsing import read_recipe
from onepiece.training.ablation_data import contenders_of_rows, contenders_of_shop, slug
from onepiece.training.ablation_report import ablation_lines, ablation_table
from onepiece.training.ablations import TABLES, ablated, override
from onepiece.training.compare import Contender, Outcome
from onepiece.training.log_data import Shop
from onepiece.training.packed import open_examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.uncertainty import PairedDifference, SeedSpread

BASE = TrainingRecipe()
"""Both heads, all losses."""
BASES = {
    "retrieval": TrainingRecipe.model_validate({"model": {"ranking_tasks": []}}),
    "ranking": TrainingRecipe.model_validate({"model": {"retrieval_tasks": []}}),
}
OF_ONE_HEAD = {name: table.heads[0] for name, table in TABLES.items() if len(table.heads) == 1}


@pytest.mark.parametrize("table", TABLES)
def test_every_row_loads_onto_every_head_it_is_about_and_has_its_values(table: str):
    for head in TABLES[table].heads:
        for row, recipe in ablated(table, BASES[head]):
            for path, value in row.overrides.items():
                part, _, name = path.rpartition(".")
                assert getattr(getattr(recipe, part), name) == value, row.name


@pytest.mark.parametrize("table", [name for name in TABLES if name.startswith("table")])
def test_every_row_changes_something_of_the_row_before(table: str):
    recipes = [recipe for _, recipe in ablated(table, BASE)]

    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("table", [name for name in TABLES if name.startswith("beyond")])
def test_every_row_of_ours_changes_something_unless_it_names_what_the_base_has(table: str):
    same = [row.name for row, recipe in ablated(table, BASES[OF_ONE_HEAD[table]])
            if recipe == BASES[OF_ONE_HEAD[table]]]  # fmt: skip

    steps = "K = 2" if OF_ONE_HEAD[table] == "retrieval" else "K = 3"
    assert same == ["base", steps, "selected history"]


@pytest.mark.parametrize(("table", "head"), OF_ONE_HEAD.items())
def test_a_table_of_the_other_head_is_refused(table: str, head: str):
    other = BASES["ranking" if head == "retrieval" else "retrieval"]

    with pytest.raises(InvalidInput, match=f"{table} is about {head}.*no model.{head}_tasks"):
        ablated(table, other)


def test_rows_are_chosen_by_name_and_kept_in_order():
    chosen = ablated("table6", BASE, rows=["C = 12", "C = 1"])

    assert [row.name for row, _ in chosen] == ["C = 1", "C = 12"]


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [("table7", (), "give one of table3"), ("table6", ("C = 2",), "no row C = 2; it has: C = 1")],
)
def test_an_unknown_table_or_row_is_refused(table: str, rows: tuple[str, ...], message: str):
    with pytest.raises(InvalidInput, match=message):
        ablated(table, BASE, rows=rows)


def test_another_model_is_refused():
    other = TrainingRecipe.model_validate({"model": {"kind": "sasrec"}})

    with pytest.raises(InvalidInput, match="kind is sasrec"):
        ablated("table4", other)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.num_hops": 1}, "no field model.num_hops"),
        ({"losses.ranking_bce.x": 1}, "no field losses.ranking_bce.x"),
        ({"model.num_ranking_steps": 99}, "num_ranking_steps"),
        ({"model.item_ids": "none", "model.has_side_information": False}, "nothing of an item"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(overrides: Mapping[str, object], message: str):
    with pytest.raises(InvalidRecipe, match=message):
        override(BASE, overrides)


def test_an_override_leaves_all_else_as_it_was():
    changed = override(BASE, {"model.group_size": "all"})

    assert changed.model.group_size == "all"
    assert override(changed, {"model.group_size": BASE.model.group_size}) == BASE


def test_folders_of_rows_differ():
    for table in TABLES.values():
        assert len({slug(row.name) for row in table.rows}) == len(table.rows)


def _contenders(table: str, base: TrainingRecipe, out: Path) -> list[Path]:
    found = contenders_of_rows(
        ablated(table, base), base, data=Path("data"), test=Path("test"), source=out, out=out
    )
    return [one.data for one in found]


def test_rows_of_the_bases_context_share_its_examples(tmp_path: Path):
    assert set(_contenders("table6", BASE, tmp_path)) == {Path("data")}


def test_rows_of_another_context_need_intents(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"rows ids only; .*no part `intents`.*--rows"):
        _contenders("table3", BASE, tmp_path)


@pytest.fixture(scope="module")
def shop(
    repository: Path, world_module: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Shop:
    """The small world as a shop's folder, whose last day is the test."""
    folder = tmp_path_factory.mktemp("shop")
    world = world_module.make_world(folder)
    (folder / "tables").rename(folder / "item_tables")
    write_catalogue(world.catalogue, folder / "catalogue.parquet")
    settings = FeatureStoreSettings(folder=folder / "store")
    FeastStore.create(repository / "feature_repo", settings).close()
    world.log.close()
    last_ms = max(event.received_at_ms for event in world.events)
    shop = Shop(folder, until_ms=(last_ms // DAY_MS + 1) * DAY_MS, test_days=1)
    _backfill(shop, AnchorRecipe())
    return shop


def _backfill(shop: Shop, anchors: AnchorRecipe) -> None:
    with closing(SqliteEventLog.open(shop.folder / "log")) as log:
        backfill(
            log,
            read_catalogue(shop.folder / "catalogue.parquet"),
            history_recipe=HistoryRecipe(),
            anchor_recipe=anchors,
            from_ms=shop.until_ms - 14 * DAY_MS,
            to_ms=shop.until_ms,
            out=shop.folder / "store" / "offline",
        )


def _of_shop(repository: Path, shop: Shop, out: Path, table: str, *names: str) -> list[Contender]:
    tiny = read_recipe(repository / "ray_jobs" / "recipes" / "tiny.yaml", TrainingRecipe)
    return contenders_of_shop(ablated(table, tiny, rows=names), shop=shop, out=out)


@pytest.mark.integration
def test_rows_of_a_shop_share_the_examples_of_one_context(
    repository: Path, shop: Shop, tmp_path: Path
):
    alike = _of_shop(repository, shop, tmp_path, "table6", "C = 1", "C = 4")
    without, anchored = _of_shop(
        repository, shop, tmp_path, "table3", "+ side information", "+ PA(10)"
    )

    assert alike[0].data == alike[1].data
    assert len({alike[0].data, without.data, anchored.data}) == 3
    widths = []
    for one in (without, anchored):
        tests = open_examples(one.test, context=one.recipe.context)
        widths.append(tests.sizes(tests.rows(is_validation=True)).mean())
    assert widths[0] < widths[1]


@pytest.mark.integration
def test_whoever_reads_the_log_meanwhile_changes_no_examples(
    repository: Path, shop: Shop, tmp_path: Path
):
    (first,) = _of_shop(repository, shop, tmp_path, "table6", "C = 1")

    with closing(SqliteEventLog.open(shop.folder / "log")) as log:
        log.read(0, 0)
        assert len(list((shop.folder / "log").iterdir())) > 1
        (again,) = _of_shop(repository, shop, tmp_path, "table6", "C = 1")

    assert again == first


@pytest.mark.integration
def test_examples_of_other_anchors_of_one_log_are_not_shared(
    repository: Path, shop: Shop, tmp_path: Path
):
    shutil.copytree(shop.folder, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "store" / "offline")
    other = Shop(tmp_path / "other", until_ms=shop.until_ms, test_days=1)
    _backfill(other, AnchorRecipe(max_items_per_group=1))

    (mine,) = _of_shop(repository, shop, tmp_path / "out", "table3", "+ PA(10)")
    (theirs,) = _of_shop(repository, other, tmp_path / "out", "table3", "+ PA(10)")

    assert mine.data != theirs.data
    assert mine.test != theirs.test


def _outcome(name: str, auc: float) -> Outcome:
    return Outcome(
        name=name,
        kind="onepiece",
        metrics={"auc_order": SeedSpread(auc, None, 1), "mrr_first": SeedSpread(0.3, None, 1)},
        headline="mrr_first",
        against_first=None if name == "c-1" else PairedDifference(0.1, 0.0, 0.2, 0.5, 7),
        num_steps=(1,),
    )


def test_the_direction_is_told_line_by_line():
    rows = TABLES["table6"].rows
    aucs = (0.6, 0.7, 0.65, 0.65, 0.9)
    outcomes = [_outcome(slug(row.name), auc) for row, auc in zip(rows, aucs, strict=True)]

    steps = [None, *(PairedDifference(value, -0.1, 0.1, 0.5, 7) for value in (0.1, -0.1, 0, 0.3))]

    lines = list(ablation_lines(rows, outcomes, steps))

    alike = [line["figures"]["C-AUC"]["is_alike"] for line in lines[:4]]
    assert alike == [None, True, False, False]
    assert lines[4]["figures"] == {}
    text = ablation_table(rows, outcomes, steps)
    assert (
        "| C = 4 | 0.913 | auc_order 0.7000 | yes | 0.3000 | +0.1000 (-0.1000 to +0.1000)" in text
    )
    assert "| 0.3000 | -0.1000 (-0.1000 to +0.1000) | +0.1000 (+0.0000 to +0.2000) |" in text
    assert "1 seed(s), 7 users" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
