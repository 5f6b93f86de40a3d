"""The vocabulary: from ids and labels to rows of the model's tables, saved with the weights.

Row 0 is padding and row 1 stands for everything unknown, in every table; known ids start at
row 2 in ascending order, so that equal inputs give equal vocabularies.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onepiece.errors import InvalidInput
from onepiece.events.catalogue import UNKNOWN, Catalogue
from onepiece.features.store import UserProfile

PADDING_ROW = 0
"""Row of padding in every table."""
UNKNOWN_ROW = 1
"""Row of every id or label that the vocabulary does not hold."""
FIRST_ROW = 2
"""Row of the first known id or label."""

ITEM_COLUMNS: tuple[str, ...] = (
    "category_codes",
    "type_codes",
    "brand_codes",
    "maker_codes",
    "department_codes",
)
"""Columns of item side features; each is a field of `Vocabulary`."""
_ARRAYS = (*ITEM_COLUMNS, "order_counts")
_LISTS = ("item_ids", "query_ids", "words")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Rows of items, queries, words and profile labels; V = number of items + 2.

    Compared by `digest()`.
    """

    item_ids: tuple[str, ...]
    """(V - 2,) items, ascending; the item at index i has row i + 2."""
    category_codes: NDArray[np.int64]
    """(V,) code of each row's category; 0 padding, 1 unknown, as in every column of codes."""
    type_codes: NDArray[np.int64]
    """(V,) code of each row's product type."""
    brand_codes: NDArray[np.int64]
    """(V,) code of each row's brand."""
    maker_codes: NDArray[np.int64]
    """(V,) code of each row's manufacturer."""
    department_codes: NDArray[np.int64]
    """(V,) code of each row's department."""
    order_counts: NDArray[np.int64]
    """(V,) order lines of each item in the log up to the training cut; 0 for rows 0 and 1."""
    query_ids: tuple[str, ...]
    """Queries, ascending; the first has row 2."""
    words: tuple[str, ...]
    """Words of the queries, ascending; the first has row 2."""
    profile_labels: Mapping[str, tuple[str, ...]]
    """Field of `UserProfile` -> its labels, ascending; the first has code 2."""

    @property
    def num_items(self) -> int:
        """V: rows of the item table, padding and unknown included."""
        return len(self.item_ids) + FIRST_ROW

    @property
    def num_queries(self) -> int:
        """Rows of the query table, padding and unknown included."""
        return len(self.query_ids) + FIRST_ROW

    @property
    def num_words(self) -> int:
        """Rows of the word table, padding and unknown included."""
        return len(self.words) + FIRST_ROW

    def num_codes(self, column: str) -> int:
        """Counts the codes of an item column or profile field, padding and unknown included."""
        if column in self.profile_labels:
            return len(self.profile_labels[column]) + FIRST_ROW
        codes: NDArray[np.int64] = getattr(self, column)
        return max(int(codes.max(initial=0)) + 1, FIRST_ROW)

    @cached_property
    def log_popularity(self) -> NDArray[np.float32]:
        """(V,) log(1 + order_counts)."""
        return np.log1p(self.order_counts).astype(np.float32)

    @cached_property
    def item_row_of(self) -> Mapping[str, int]:
        """Item id -> row; ids that are not in it have row 1."""
        return _rows(self.item_ids)

    @cached_property
    def _query_row_of(self) -> Mapping[str, int]:
        return _rows(self.query_ids)

    @cached_property
    def _word_row_of(self) -> Mapping[str, int]:
        return _rows(self.words)

    @cached_property
    def _code_of_label(self) -> tuple[tuple[str, Mapping[str, int]], ...]:
        # In the order of the type's fields: JSON may have sorted the mapping.
        return tuple(
            (field.name, _rows(self.profile_labels[field.name])) for field in fields(UserProfile)
        )

    def item_rows(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Encodes items: (len(item_ids),), 1 where unknown."""
        row_of = self.item_row_of
        return np.array([row_of.get(item_id, UNKNOWN_ROW) for item_id in item_ids], dtype=np.int64)

    def query_row(self, query_id: str) -> int:
        """Encodes a query; 1 if unknown."""
        return self._query_row_of.get(query_id, UNKNOWN_ROW)

    def word_rows(self, query_id: str, *, max_words: int) -> NDArray[np.int64]:
        """Encodes the first `max_words` words of a query, 1 where unknown."""
        row_of = self._word_row_of
        words = query_id.split()[:max_words]
        return np.array([row_of.get(word, UNKNOWN_ROW) for word in words], dtype=np.int64)

    def profile_codes(self, profile: UserProfile) -> NDArray[np.int64]:
        """Encodes a profile in the order of its fields; 1 where unknown."""
        codes = [
            code_of.get(getattr(profile, name), UNKNOWN_ROW)
            for name, code_of in self._code_of_label
        ]
        return np.array(codes, dtype=np.int64)

    def to_json(self) -> str:
        """Writes canonical JSON: equal vocabularies give equal text."""
        document: dict[str, object] = {name: list(getattr(self, name)) for name in _LISTS}
        document |= {name: getattr(self, name).tolist() for name in _ARRAYS}
        document["profile_labels"] = {k: list(v) for k, v in self.profile_labels.items()}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """Reads what `to_json` wrote.

        Raises:
            InvalidInput: Not JSON, a missing or unknown field, or columns of unequal length.
        """
        try:
            document = json.loads(text)
            arrays = {name: np.array(document.pop(name), dtype=np.int64) for name in _ARRAYS}
            lists = {name: tuple(document.pop(name)) for name in _LISTS}
            labels = document.pop("profile_labels")
            profile_labels = {f.name: tuple(labels[f.name]) for f in fields(UserProfile)}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InvalidInput(
                f"this is not a vocabulary: {error!r}; give the file that `to_json` wrote"
            ) from error
        num_rows = len(lists["item_ids"]) + FIRST_ROW
        if document or any(array.shape != (num_rows,) for array in arrays.values()):
            raise InvalidInput(
                f"the vocabulary has unknown fields {sorted(document)} or columns whose length is "
                f"not {num_rows}; give the file that `to_json` wrote"
            )
        return cls(
            item_ids=lists["item_ids"],
            category_codes=arrays["category_codes"],
            type_codes=arrays["type_codes"],
            brand_codes=arrays["brand_codes"],
            maker_codes=arrays["maker_codes"],
            department_codes=arrays["department_codes"],
            order_counts=arrays["order_counts"],
            query_ids=lists["query_ids"],
            words=lists["words"],
            profile_labels=profile_labels,
        )

    def digest(self) -> str:
        """Hashes the canonical JSON: 32 hexadecimal digits."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=16).hexdigest()


def build_vocabulary(
    catalogue: Catalogue,
    *,
    query_ids: Iterable[str],
    order_counts: Mapping[str, int],
    profiles: Iterable[UserProfile] = (),
) -> Vocabulary:
    """Builds the vocabulary of everything known at the training cut.

    Args:
        catalogue: Every item becomes a row, sold or not: a new item still has its side features.
        query_ids: Queries of the training log; their words become the known words.
        order_counts: Item id -> order lines in the log before the cut; missing means 0.
        profiles: Users' profiles, for the labels that occur.
    """
    queries = tuple(sorted(set(query_ids)))
    counts = [0, 0, *(order_counts.get(item_id, 0) for item_id in catalogue.item_ids)]
    labels: dict[str, set[str]] = {field.name: set() for field in fields(UserProfile)}
    for profile in profiles:
        for name, known in labels.items():
            known.add(getattr(profile, name))
    return Vocabulary(
        item_ids=catalogue.item_ids,
        category_codes=_codes(catalogue.category_ids),
        type_codes=_codes(catalogue.type_ids),
        brand_codes=_codes(catalogue.brand_ids),
        maker_codes=_codes(catalogue.maker_ids),
        department_codes=_codes(catalogue.department_ids),
        order_counts=np.array(counts, dtype=np.int64),
        query_ids=queries,
        words=tuple(sorted({word for query in queries for word in query.split()})),
        profile_labels={name: tuple(sorted(known - {UNKNOWN})) for name, known in labels.items()},
    )


def _rows(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names, start=FIRST_ROW)}


def _codes(labels: Sequence[str]) -> NDArray[np.int64]:
    """Encodes one column of labels, rows 0 and 1 of the table in front; UNKNOWN gets code 1."""
    code_of = _rows(sorted(set(labels) - {UNKNOWN}))
    codes = [PADDING_ROW, UNKNOWN_ROW, *(code_of.get(label, UNKNOWN_ROW) for label in labels)]
    return np.array(codes, dtype=np.int64)
