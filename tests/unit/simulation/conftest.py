"""A tiny shop for shoppers: catalogue, receipts and visits, made by hand."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from onepiece.datasets.complete_journey import FIRST_DAY_MS, Receipts
from onepiece.events.catalogue import Catalogue
from onepiece.simulation.visits import Demand, Intent, Visit

DAY_MS = 86_400_000


def catalogue(rows: dict[str, tuple[str, str, str, str]]) -> Catalogue:
    """Makes a catalogue of item id -> (category, type, maker, size)."""
    ids = tuple(sorted(rows))
    category, kind, maker, size = zip(*(rows[item_id] for item_id in ids), strict=True)
    return Catalogue(
        item_ids=ids,
        category_ids=category,
        type_ids=kind,
        brand_ids=tuple("National" for _ in ids),
        maker_ids=maker,
        department_ids=tuple("GROCERY" for _ in ids),
        sizes=size,
    )


def receipts(baskets: Sequence[tuple[int, str, str, dict[str, float]]]) -> Receipts:
    """Makes receipts of (at_ms, household, basket, item -> price); one unit of each, one store."""
    lines = [
        (at_ms, household, basket, item_id, price)
        for at_ms, household, basket, items in sorted(baskets, key=lambda b: (b[0], b[2]))
        for item_id, price in sorted(items.items())
    ]
    columns = list(zip(*lines, strict=True)) or [()] * 5
    prices = np.array(columns[4], dtype=float)
    return Receipts(
        household_ids=np.array(columns[1], dtype=object),
        store_ids=np.array(["s1"] * len(lines), dtype=object),
        basket_ids=np.array(columns[2], dtype=object),
        item_ids=np.array(columns[3], dtype=object),
        quantities=np.ones(len(lines), dtype=np.int64),
        unit_prices=prices,
        shelf_prices=prices,
        at_ms=np.array(columns[0], dtype=np.int64),
        weeks=np.ones(len(lines), dtype=np.int64),
    )


def visit(name: str, *demands: Sequence[str], household: str = "h1", start_ms: int = 0) -> Visit:
    """Makes a visit with one intent for each group of demanded items, at 2.00 each, two units."""
    return Visit(
        visit_id=name,
        household_id=household,
        store_id="s1",
        start_ms=start_ms or FIRST_DAY_MS,
        intents=tuple(
            Intent(
                query_id=f"query {number}",
                category_id=f"query {number}",
                demand=tuple(Demand(item_id, 2, 2.0) for item_id in items),
            )
            for number, items in enumerate(demands)
        ),
    )


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makes the parts of a tiny shop: `catalogue`, `receipts`, `visit`."""
    return SimpleNamespace(catalogue=catalogue, receipts=receipts, visit=visit)


@pytest.fixture
def shelf() -> Catalogue:
    """One category: a is wanted, b its close substitute, c to z are other types."""
    rows = {name: ("bread", f"type {name}", f"maker {name}", "1 LB") for name in "cdefghijklmnop"}
    rows["a"] = rows["b"] = ("bread", "white", "maker a", "1 LB")
    return catalogue(rows)
