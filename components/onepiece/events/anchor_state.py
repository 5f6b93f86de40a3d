"""What an anchor ledger holds, as arrays: to save it, to restore it and to keep it small."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import InvalidInput
from onepiece.events.anchor_rows import (
    CODE_BITS,
    CODE_MASK,
    QUERY_SHIFT,
    Codes,
    Rows,
    StagedRows,
)
from onepiece.events.anchors import AnchorLedger, AnchorRecipe

Arrays = Mapping[str, NDArray[np.int64] | NDArray[np.uint8]]
"""Name -> array; text is UTF-8, one name a line, as no identifier holds a newline."""


def dump_ledger(ledger: AnchorLedger) -> Arrays:
    """Gives all that a ledger holds; arrays are its own, so do not change them."""
    recipe = ledger.recipe.model_dump_json()
    return {
        "recipe": _as_text([recipe]),
        "computed_at_ms": np.array([ledger.computed_at_ms]),
        "last_at_ms": ledger.last_at_ms,
        "seen_event_ids": _as_text(list(ledger.seen_event_ids)),
        **{name: _as_text(codes.names) for name, codes in _codes_of(ledger).items()},
        **{name: staged.rows for name, staged in _staged_of(ledger).items()},
        **{group: getattr(ledger, group).rows for group in _GROUPS},
        "erasures": ledger.voids.erasures,
        "refunds": ledger.voids.refunds,
    }


def restore_ledger(arrays: Arrays, recipe: AnchorRecipe) -> AnchorLedger:
    """Makes the ledger that `dump_ledger` saw.

    Raises:
        InvalidInput: It counted by another recipe.
        KeyError: An array is missing.
    """
    (saved,) = _names_in(arrays["recipe"])
    if saved != recipe.model_dump_json():
        raise InvalidInput(
            f"the saved anchors were counted by the recipe {saved}, and this one is "
            f"{recipe.model_dump_json()}; take the same recipe, or another folder, and they are "
            "counted from the whole log"
        )
    ledger = AnchorLedger(recipe)
    ledger.computed_at_ms = int(arrays["computed_at_ms"][0])
    ledger.last_at_ms = arrays["last_at_ms"].astype(np.int64)
    ledger.seen_event_ids.update(dict.fromkeys(_names_in(arrays["seen_event_ids"])))
    for name, codes in _codes_of(ledger).items():
        codes.replace(_names_in(arrays[name]))
    for name, staged in _staged_of(ledger).items():
        staged.rows = arrays[name].astype(np.int64)
    for group in _GROUPS:
        getattr(ledger, group).rows = arrays[group].astype(np.int64)
    ledger.voids.erasures = arrays["erasures"].astype(np.int64)
    ledger.voids.refunds = arrays["refunds"].astype(np.int64)
    return ledger


def forget_unused(ledger: AnchorLedger) -> None:
    """Forgets the names of queries, items and users that no row has any more.

    Nothing that is computed changes: codes keep their order. So a ledger that runs for years
    holds the names of its window only, and nobody's name for long after she was erased.
    """
    voids = ledger.voids
    rows: list[Rows] = [staged.rows for staged in _staged_of(ledger).values()]
    rows += [*(group.rows for group in ledger.groups), voids.erasures, voids.refunds]
    keys = np.concatenate([one[0] for one in rows])
    num_queries = len(ledger.last_at_ms)
    is_reported = ledger.is_reported(np.arange(num_queries))
    # What is taken back names no query; its keys have the first one's code.
    is_used = np.ones(max(len(ledger.queries.names), 1), bool)
    is_used[:num_queries] = is_reported
    is_used[keys >> QUERY_SHIFT] = True
    ledger.last_at_ms = ledger.last_at_ms[is_used[:num_queries]]
    queries = _keep(ledger.queries, np.flatnonzero(is_used))
    items = _keep(ledger.items, np.unique((keys >> CODE_BITS) & CODE_MASK))
    users = _keep(ledger.users, np.unique(keys & CODE_MASK))

    def recode(old: NDArray[np.int64]) -> NDArray[np.int64]:
        query = queries[old >> QUERY_SHIFT] << QUERY_SHIFT
        item = items[(old >> CODE_BITS) & CODE_MASK] << CODE_BITS
        new: NDArray[np.int64] = query | item | users[old & CODE_MASK]
        return new

    for one in rows:
        one[0] = recode(one[0])
    for staged, waiting in zip(_staged_of(ledger).values(), rows, strict=False):
        staged.rows = waiting


_GROUPS = ("requests", "exposed", "clicked", "ordered")


def _codes_of(ledger: AnchorLedger) -> dict[str, Codes]:
    return {"queries": ledger.queries, "items": ledger.items, "users": ledger.users}


def _staged_of(ledger: AnchorLedger) -> dict[str, StagedRows]:
    return {
        **{f"staged_{group}": getattr(ledger, group).staged for group in _GROUPS},
        "staged_erasures": ledger.voids.staged_erasures,
        "staged_refunds": ledger.voids.staged_refunds,
    }


def _keep(codes: Codes, used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keeps the names of ascending codes; returns the new code of each old one, else 0."""
    new = np.zeros(max(len(codes.names), 1), np.int64)
    new[used] = np.arange(len(used))
    codes.replace([codes.names[code] for code in used.tolist() if code < len(codes.names)])
    return new


def _as_text(names: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(names).encode(), np.uint8)


def _names_in(text: NDArray[np.int64] | NDArray[np.uint8]) -> list[str]:
    whole = text.tobytes().decode()
    return whole.split("\n") if whole else []
