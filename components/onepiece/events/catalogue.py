"""The catalogue: what a shop sells, and where an item stands among its like.

A catalogue is columnar, because everything downstream (vocabulary, item table, similarity)
reads whole columns. Row order is the order of `item_ids`, ascending, and never changes
within one catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

UNKNOWN = "unknown"
"""Value of a side feature that the shop does not give."""


@dataclass(frozen=True)
class Catalogue:
    """Items and their side features, one entry a row; N = number of items."""

    item_ids: tuple[str, ...]
    """(N,) ids, ascending and unique."""
    category_ids: tuple[str, ...]
    """(N,) what a query names: the words of the item's category, normalised."""
    type_ids: tuple[str, ...]
    """(N,) finer than the category: product type."""
    brand_ids: tuple[str, ...]
    """(N,) brand."""
    maker_ids: tuple[str, ...]
    """(N,) manufacturer."""
    department_ids: tuple[str, ...]
    """(N,) coarser than the category: department."""
    sizes: tuple[str, ...]
    """(N,) package size as printed."""

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Item id -> row."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def category_of(self) -> Mapping[str, str]:
        """Item id -> category id."""
        return dict(zip(self.item_ids, self.category_ids, strict=True))


def normalise_query(text: str) -> str:
    """Turns words as typed into a query id: lower case, single spaces, at most 128 characters."""
    return " ".join(text.lower().split())[:128]
