"""How the values that a model reads are distributed: small histograms of each feature.

A bundle holds those of its training; the skew watch counts those of serving into the same bins.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from onepiece.context.builder import SITUATION_FEATURES, TOKEN_FEATURES, Context, TokenKind
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.context.vocabulary import UNKNOWN_ROW, Vocabulary

Values = Mapping[str, NDArray[np.float64]]
"""Feature -> its values in one request; none, one or several."""

COUNTED: Mapping[str, Literal["number", "code"]] = {
    "num_recent_events": "number",
    "num_memory_events": "number",
    "newest_event_age_days": "number",
    "has_history": "code",
    "action": "code",
    "category": "code",
    "is_known_item": "code",
    "num_anchor_items": "number",
    "num_query_requests": "number",
    "is_known_query": "code",
    "query": "code",
    "has_profile": "code",
    "shelf_price": "number",
    "shelf_store_sales": "number",
}
"""Every feature, and whether its values are numbers, whose bins are intervals, or codes, whose bins
are single values. Of the history: its events and the age of the newest; action, category and
whether the vocabulary has it, of each token. Of the query: anchors, requests in their window,
whether the vocabulary has it. shelf: of the items that the store sells for the query."""

NUM_INTERVALS = 10
"""Bins of a number: tenths of the training, fewer where values repeat."""
NUM_CODES = 20
"""Codes with a bin of their own, the most frequent in training; all others share one."""

_NUM_RECENT = SITUATION_FEATURES.index("log_history_length")
_NUM_MEMORY = SITUATION_FEATURES.index("log_memory_length")
_NUM_REQUESTS = SITUATION_FEATURES.index("log_num_query_requests")
_AGE = TOKEN_FEATURES.index("log_age_days")
_PRICE = CANDIDATE_FEATURES.index("log_price")
_STORE_SALES = CANDIDATE_FEATURES.index("log_store_sales")


def feature_values(
    context: Context, shelf_features: NDArray[np.float32], vocabulary: Vocabulary
) -> Values:
    """Reads the values of the `COUNTED` features out of one request.

    Args:
        context: What the model reads.
        shelf_features: (N, len(CANDIDATE_FEATURES)) of some items of the shelf, drawn by chance.
        vocabulary: The context's.
    """
    is_history = context.kinds <= TokenKind.MEMORY
    is_anchor = ~is_history & (context.kinds < TokenKind.BEGIN_GROUP)
    rows = context.item_rows[is_history]
    ages = np.expm1(context.token_features[is_history, _AGE].astype(np.float64))
    counts = np.round(np.expm1(context.situation.astype(np.float64)))
    shelf = np.expm1(shelf_features.astype(np.float64))
    values = {
        "num_recent_events": counts[[_NUM_RECENT]],
        "num_memory_events": counts[[_NUM_MEMORY]],
        "newest_event_age_days": ages.min(keepdims=True) if len(ages) else ages,
        "has_history": [len(rows) > 0],
        "action": context.actions[is_history],
        "category": vocabulary.category_codes[rows],
        "is_known_item": rows != UNKNOWN_ROW,
        "num_anchor_items": [is_anchor.sum()],
        "num_query_requests": counts[[_NUM_REQUESTS]],
        "is_known_query": [context.query_row != UNKNOWN_ROW],
        "query": [context.query_row],
        "has_profile": [(context.profile_codes != UNKNOWN_ROW).any()],
        "shelf_price": shelf[:, _PRICE],
        "shelf_store_sales": shelf[:, _STORE_SALES],
    }
    return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}


class Histogram(BaseModel):
    """Counts of one feature's values in bins that its training fixed; B = number of bins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number", "code"] = Field(description="See `COUNTED`.")
    bounds: tuple[float, ...] = Field(
        max_length=max(NUM_INTERVALS, NUM_CODES),
        description="number: (B - 1,) ascending; a bin holds values above the bound before it, up "
        "to and including its own; the last bin has none. code: (B - 1,) the codes; the last bin "
        "holds all others.",
    )
    counts: tuple[int, ...] = Field(description="(B,) values in each bin.")

    @model_validator(mode="after")
    def _has_one_more_bin_than_bounds(self) -> Self:
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError(
                f"{len(self.counts)} counts for {len(self.bounds)} bounds; there is one more bin "
                "than bounds"
            )
        return self

    @property
    def num_values(self) -> int:
        """Values counted."""
        return sum(self.counts)

    def count(self, values: NDArray[np.float64]) -> "Histogram":
        """Counts other values into the same bins."""
        if self.kind == "number":
            places = np.searchsorted(np.array(self.bounds), values, side="left")
        else:
            places = np.full(len(values), len(self.bounds))
            for place, code in enumerate(self.bounds):
                places[values == code] = place
        counts = np.bincount(places, minlength=len(self.bounds) + 1)
        return self.model_copy(update={"counts": tuple(counts.tolist())})


class FeatureHistograms(BaseModel):
    """Histograms of all features over some requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_requests: int = Field(ge=0, description="Requests counted.")
    features: dict[str, Histogram] = Field(description="Name, one of `COUNTED` -> its histogram.")


def count_features(requests: Iterable[Values]) -> FeatureHistograms:
    """Fixes the bins by the values of a training, and counts them."""
    num_requests, columns = _columns(requests)
    features = {name: _fitted(kind, columns[name]) for name, kind in COUNTED.items()}
    return FeatureHistograms(num_requests=num_requests, features=features)


def count_into(bins: FeatureHistograms, requests: Iterable[Values]) -> FeatureHistograms:
    """Counts other requests into the bins that a training fixed."""
    num_requests, columns = _columns(requests)
    features = {name: bin_.count(columns[name]) for name, bin_ in bins.features.items()}
    return FeatureHistograms(num_requests=num_requests, features=features)


def _columns(requests: Iterable[Values]) -> tuple[int, dict[str, NDArray[np.float64]]]:
    parts: dict[str, list[NDArray[np.float64]]] = {name: [np.zeros(0)] for name in COUNTED}
    num_requests = 0
    for values in requests:
        num_requests += 1
        for name, pieces in parts.items():
            pieces.append(values[name])
    return num_requests, {name: np.concatenate(pieces) for name, pieces in parts.items()}


def _fitted(kind: Literal["number", "code"], values: NDArray[np.float64]) -> Histogram:
    if kind == "number":
        shares = np.arange(1, NUM_INTERVALS) / NUM_INTERVALS
        # One of the values itself, so that whole numbers have whole bounds.
        bounds = np.unique(np.quantile(values, shares, method="lower")) if len(values) else values
    else:
        codes, counts = np.unique(values, return_counts=True)
        bounds = codes[np.lexsort((codes, -counts))][:NUM_CODES]
    empty = Histogram(kind=kind, bounds=tuple(bounds.tolist()), counts=(0,) * (len(bounds) + 1))
    return empty.count(values)
