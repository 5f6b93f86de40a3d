"""Incremental training: yesterday's weights into a model with today's vocabulary.

A row of a table belongs to an item, a query, a word or a label, whose place changes when the
vocabulary grows: rows are moved by what they stand for, and what is new starts afresh.
"""

# Shape suffixes: R = rows of a new table, V = rows of the item table.

import re

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.bundle import Bundle
from onepiece.context.builder import PROFILE_FIELDS
from onepiece.context.vocabulary import FIRST_ROW, ITEM_COLUMNS, UNKNOWN_ROW, Vocabulary
from onepiece.errors import InvalidRecipe
from onepiece.models.protocols import Model
from onepiece.training.recipe import TrainingRecipe

FRESH = -1
"""Old row of what the old vocabulary does not have."""

_TABLES = re.compile(
    r"(?:^|\.)(?:(?P<items>items(?:\.id_table)?)|(?P<queries>queries)|(?P<words>words)"
    r"|side_tables\.(?P<side>\d+)|profiles\.(?P<profile>\d+))\.weight"
)
"""Names of the weights whose rows are those of a vocabulary, in all models."""


def carry_over(model: Model, parent: Bundle, *, vocabulary: Vocabulary) -> None:
    """Gives a new model the parent's weights, rows of tables by what they stand for.

    Args:
        model: Untrained, of the parent's recipe; rows that are new keep what it drew for them.
        parent: Yesterday's bundle.
        vocabulary: That of `model`.

    Raises:
        InvalidRecipe: A weight's shape differs that is no table of the vocabulary.
    """
    fresh, old = model.state_dict(), parent.model.state_dict()
    for name, values in fresh.items():
        rows_R = _old_rows(name, parent.vocabulary, vocabulary)
        if rows_R is not None:
            is_known_R = torch.from_numpy(rows_R != FRESH)
            values[is_known_R] = old[name][torch.from_numpy(rows_R[rows_R != FRESH])]
        elif values.shape == old[name].shape:
            values.copy_(old[name])
        else:
            raise InvalidRecipe(
                f"{name} has shape {tuple(values.shape)}, in the bundle to start from it is "
                f"{tuple(old[name].shape)}; train this model from the start"
            )
    model.load_state_dict(fresh)


def check_parent(parent: Bundle, recipe: TrainingRecipe) -> None:
    """Refuses to start from a bundle of another model or context.

    Raises:
        InvalidRecipe: They differ.
    """
    for part in ("model", "context"):
        ours, theirs = getattr(recipe, part), getattr(parent.recipe, part)
        if ours != theirs:
            raise InvalidRecipe(
                f"the bundle to start from has {part} {theirs!r}, the recipe says {ours!r}; "
                "training can only go on with the same, or start from nothing"
            )


def moved_rows(old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[np.int64]:
    """Finds the old row of each new one: (len(new) + 2,), `FRESH` where `old` has no such name.

    Padding and unknown stay where they are.
    """
    row_of = {name: row for row, name in enumerate(old, start=FIRST_ROW)}
    return np.array([0, UNKNOWN_ROW, *(row_of.get(name, FRESH) for name in new)], dtype=np.int64)


def moved_codes(old: Vocabulary, new: Vocabulary, column: str) -> NDArray[np.int64]:
    """Finds the old code of each new one in a column of items: (number of new codes,).

    A vocabulary holds codes without their labels, so a label is known by its items: the old code
    is the one that most of the items of the new code had, the smallest in a tie.
    """
    old_rows_V = moved_rows(old.item_ids, new.item_ids)
    is_shared_V = old_rows_V >= FIRST_ROW
    new_codes = getattr(new, column)[is_shared_V]
    old_codes = getattr(old, column)[old_rows_V[is_shared_V]]
    counts = np.zeros((new.num_codes(column), old.num_codes(column)), dtype=np.int64)
    np.add.at(counts, (new_codes, old_codes), 1)
    counts[:, :FIRST_ROW] = 0
    codes = np.where(counts.any(1), counts.argmax(1), FRESH)
    codes[:FIRST_ROW] = (0, UNKNOWN_ROW)
    return codes


def _old_rows(name: str, old: Vocabulary, new: Vocabulary) -> NDArray[np.int64] | None:
    found = _TABLES.search(name)
    if found is None:
        return None
    if found["side"]:
        return moved_codes(old, new, ITEM_COLUMNS[int(found["side"])])
    if found["profile"]:
        field = PROFILE_FIELDS[int(found["profile"])]
        return moved_rows(old.profile_labels[field], new.profile_labels[field])
    for kind, ids in (("items", "item_ids"), ("queries", "query_ids"), ("words", "words")):
        if found[kind]:
            return moved_rows(getattr(old, ids), getattr(new, ids))
    return None
