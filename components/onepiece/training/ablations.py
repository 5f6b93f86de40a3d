"""The paper's ablations as data: named overrides onto a base recipe, with the paper's figures.

A row says every field in which its table's rows differ, so that a row means the same on any base.
Line by line a row adds one thing to the row before, as in the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from onepiece.errors import InvalidInput, InvalidRecipe
from onepiece.parsing import explain
from onepiece.training.recipe import TrainingRecipe

Head = Literal["retrieval", "ranking"]
_NO_SITUATION: Mapping[str, object] = {
    "context.has_query": False,
    "context.has_situation": False,
    "context.has_profile": False,
}
_SITUATION: Mapping[str, object] = dict.fromkeys(_NO_SITUATION, True)
_ALL_GROUPS = ("exposed", "clicked", "ordered")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    name: str
    """As in the paper."""
    overrides: Mapping[str, object]
    """Dotted field of the training recipe -> its value."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Metric, as the paper names it -> the paper's figure; empty for a row of ours."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are compared with one another, in the paper's order."""

    title: str
    """What the rows change."""
    heads: tuple[Head, ...]
    """The recipe needs one of these heads."""
    rows: tuple[Row, ...]


def override(recipe: TrainingRecipe, overrides: Mapping[str, object]) -> TrainingRecipe:
    """Sets fields, named by dotted paths, and checks the whole again.

    Raises:
        InvalidRecipe: A field that there is not, or a value that does not fit the rest.
    """
    document = recipe.model_dump(mode="python")
    for path, value in overrides.items():
        *parents, last = path.split(".")
        part: Any = document
        for name in parents:
            part = part.get(name) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part:
            raise InvalidRecipe(
                f"the recipe has no field {path} for model.kind {recipe.model.kind}; the rows of "
                "an ablation are for recipes of kind onepiece"
            )
        part[last] = value
    try:
        return TrainingRecipe.model_validate(document)
    except ValidationError as error:
        raise InvalidRecipe(
            f"overrides {dict(overrides)}: {explain(error, whole='all')}"
        ) from error


def ablated(
    table: str, recipe: TrainingRecipe, *, rows: Sequence[str] = ()
) -> list[tuple[Row, TrainingRecipe]]:
    """Makes the recipe of each row of a table.

    Args:
        table: A key of `TABLES`.
        recipe: The base, of kind onepiece.
        rows: Names of the rows that are wanted; all of them when empty.

    Returns:
        Rows and their recipes, in the table's order.

    Raises:
        InvalidInput: No such table or row, or the base is another model or has not the head.
        InvalidRecipe: A row does not fit the base.
    """
    if table not in TABLES:
        raise InvalidInput(f"table is {table}; give one of {', '.join(TABLES)}")
    chosen = TABLES[table]
    if recipe.model.kind != "onepiece":
        raise InvalidInput(
            f"the base recipe's model.kind is {recipe.model.kind}; ablations take apart onepiece"
        )
    if not any(getattr(recipe.model, f"{head}_tasks") for head in chosen.heads):
        raise InvalidInput(
            f"{table} is about {' or '.join(chosen.heads)}, and the base recipe has no "
            f"model.{chosen.heads[0]}_tasks; give a recipe with that head, or another table"
        )
    unknown = set(rows) - {row.name for row in chosen.rows}
    if unknown:
        names = "; ".join(row.name for row in chosen.rows)
        raise InvalidInput(f"{table} has no row {', '.join(sorted(unknown))}; it has: {names}")
    wanted = [row for row in chosen.rows if not rows or row.name in rows]
    return [(row, override(recipe, row.overrides)) for row in wanted]


def _context_row(name: str, figures: tuple[float, float], overrides: Mapping[str, object]) -> Row:
    return Row(name, overrides, {"R@100": figures[0], "C-AUC": figures[1]})


def _anchors(num_tokens: int, situation: Mapping[str, object]) -> dict[str, object]:
    return {
        "model.has_side_information": True,
        "model.item_ids": "learned",
        "context.anchor_groups": _ALL_GROUPS,
        "context.max_anchor_tokens": num_tokens,
        **situation,
    }


def _retrieval(
    name: str, recall: float, tasks: Sequence[str], *, steps: int, assignment: str
) -> Row:
    overrides = {
        "model.attention": "causal" if name == "causal" else "bidirectional",
        "model.num_retrieval_steps": steps,
        "model.retrieval_tasks": tuple(tasks),
        "model.task_assignment": assignment,
    }
    return Row(name, overrides, {"R@100": recall})


def _ranking(
    name: str, aucs: tuple[float, float], *, visible: bool, steps: int, assignment: str = "last"
) -> Row:
    overrides = {
        "model.attention": "causal" if name == "causal" else "bidirectional",
        "model.has_visible_candidates": visible,
        "model.num_ranking_steps": steps,
        "model.task_assignment": assignment,
    }
    return Row(name, overrides, {"C-AUC": aucs[0], "O-AUC": aucs[1]})


def _ours(head: Head, losses: Sequence[str]) -> tuple[Row, ...]:
    """Makes the rows that the paper has not; the first is the base itself."""
    return (
        Row("base", {}),
        *(Row(f"K = {steps}", {f"model.num_{head}_steps": steps}) for steps in range(7)),
        Row("group norm", {"model.norm": "group"}),
        Row("masked actions", {"model.action_mask_share": 0.2}),
        *(Row(f"without {loss}", {f"losses.{loss}": 0.0}) for loss in losses),
        Row(
            "no history",
            {"context.max_recent_tokens": 0, "context.max_memory_tokens": 0},
        ),
        Row("recent history", {"context.max_recent_tokens": 64, "context.max_memory_tokens": 0}),
        Row("selected history", {"context.max_recent_tokens": 24, "context.max_memory_tokens": 40}),
    )


TABLES: Mapping[str, Table] = {
    "table3": Table(
        "context",
        ("retrieval", "ranking"),
        (
            _context_row(
                "ids only",
                (0.407, 0.802),
                {
                    "model.has_side_information": False,
                    "model.item_ids": "learned",
                    "context.match_features": ("item",),
                    "context.anchor_groups": (),
                    **_NO_SITUATION,
                },
            ),
            _context_row(
                "+ side information",
                (0.428, 0.846),
                {
                    "model.has_side_information": True,
                    "model.item_ids": "learned",
                    "context.anchor_groups": (),
                    **_NO_SITUATION,
                },
            ),
            _context_row("+ PA(10)", (0.459, 0.879), _anchors(10, _NO_SITUATION)),
            _context_row("+ PA(20)", (0.467, 0.885), _anchors(20, _NO_SITUATION)),
            _context_row("+ PA(30)", (0.475, 0.892), _anchors(30, _NO_SITUATION)),
            _context_row("+ PA(60)", (0.491, 0.901), _anchors(60, _NO_SITUATION)),
            _context_row("+ PA(90)", (0.504, 0.908), _anchors(90, _NO_SITUATION)),
            _context_row("+ SD", (0.517, 0.911), _anchors(90, _SITUATION)),
        ),
    ),
    "table4": Table(
        "retrieval training",
        ("retrieval",),
        (
            _retrieval("causal", 0.464, ["click"], steps=0, assignment="last"),
            _retrieval("bidirectional", 0.470, ["click"], steps=0, assignment="last"),
            _retrieval("1 step, click on last", 0.490, ["click"], steps=1, assignment="last"),
            *(
                _retrieval(name, recall, ["impression", "click"], steps=steps, assignment=assigned)
                for name, recall, steps, assigned in (
                    ("1 step, multi-task on last", 0.495, 1, "last"),
                    ("2 steps, multi-task on last", 0.510, 2, "last"),
                    ("2 steps progressive", 0.517, 2, "progressive"),
                )
            ),
        ),
    ),
    "table5": Table(
        "ranking training",
        ("ranking",),
        (
            _ranking("causal", (0.839, 0.911), visible=False, steps=0),
            _ranking("bidirectional, invisible", (0.860, 0.920), visible=False, steps=0),
            _ranking("visible", (0.881, 0.937), visible=True, steps=0),
            _ranking("1 step", (0.890, 0.946), visible=True, steps=1),
            _ranking("2 steps", (0.893, 0.948), visible=True, steps=2),
            _ranking("3 steps, multi-task on last", (0.906, 0.957), visible=True, steps=3),
            _ranking(
                "3 steps progressive",
                (0.911, 0.963),
                visible=True,
                steps=3,
                assignment="progressive",
            ),
        ),
    ),
    "table6": Table(
        "block size",
        ("ranking",),
        (
            *(
                Row(f"C = {size}", {"model.group_size": size}, {"C-AUC": auc})
                for size, auc in ((1, 0.885), (4, 0.913), (8, 0.920), (12, 0.927))
            ),
            Row("C = all", {"model.group_size": "all"}),
        ),
    ),
    "beyond_retrieval": Table(
        "ours, retrieval",
        ("retrieval",),
        (
            *_ours("retrieval", ("retrieval_bce", "retrieval_u2i", "retrieval_i2u")),
            Row("M = 1", {"model.retrieval_block_size": 1}),
        ),
    ),
    "beyond_ranking": Table(
        "ours, ranking", ("ranking",), _ours("ranking", ("ranking_bce", "ranking_scl"))
    ),
}
"""Every ablation there is, by the name the command takes.

All rows of table 3 learn item ids, so that a line adds one thing; "+ SD" is the base with
learned ids and k = 90. Examples hold no more anchors than the log's: where
`AnchorRecipe.max_items_per_group` (10 unless set, at most 200) is below k, rows PA(k) see the same
anchors; set it to 90 with `onepiece features backfill --recipe`. Examples of intents have none.
Table 5 does not say where its rows of 1 and 2 steps have their tasks: on the last step (ours).

Source:
    OnePiece (arXiv:2509.18091), tables 3, 4, 5 and 6: names and figures.
"""
