from collections.abc import Mapping
from pathlib import Path

import pytest

from onepiece.errors import InvalidInput, InvalidRecipe
from onepiece.training.ablation_data import contenders_of_rows, slug
from onepiece.training.ablation_report import ablation_lines, ablation_table
from onepiece.training.ablations import TABLES, ablated, override
from onepiece.training.compare import Outcome
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

    lines = list(ablation_lines(rows, outcomes))

    alike = [line["figures"]["C-AUC"]["is_alike"] for line in lines[:4]]
    assert alike == [None, True, False, False]
    assert lines[4]["figures"] == {}
    text = ablation_table(rows, outcomes)
    assert "| C = 4 | 0.913 | auc_order 0.7000 | yes | 0.3000 |" in text
    assert "1 seed(s), 7 users" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
