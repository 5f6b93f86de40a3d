"""The one feature table: name, type, default and maximum age of every feature.

The Feast repository (`feature_repo/`), the stores and the backfill are built from it. Its digest
is saved in each bundle: a model never meets features of another meaning than it was trained on.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from onepiece.events.schema import DAY_MS

FEATURE_SERVICE = "onepiece_v1"
"""Name of the Feast feature service from which training and serving both read."""

Dtype = Literal["string", "int64", "float32", "strings", "int64s"]
"""Type of a feature; a plural is an array."""

ENTITY_KEYS: dict[str, tuple[str, ...]] = {
    "user": ("user_id",),
    "item": ("item_id",),
    "query": ("query_id",),
    "user_category": ("user_id", "category_id"),
}
"""Entity -> its join keys, all strings."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature."""

    name: str
    """Unique over all views."""
    view: str
    """Feature view that holds it."""
    entity: str
    """Entity of the view, a key of `ENTITY_KEYS`."""
    dtype: Dtype
    unit: str
    """Unit, or what an entry is."""
    default: str | int | float | tuple[()]
    """Value where there is none."""
    max_age_ms: int | None
    """Age from which its row counts as missing; None if it never gets too old. One per view."""


COUNT_BITS = 20
"""Bits of a version below `available_at_ms`; 63 bits then last until the year 2248."""
MAX_COUNT = (1 << COUNT_BITS) - 1
"""Greatest count that a version holds; a history of more events stays at it."""

NO_MAX_AGE = None
"""A history does not get wrong by getting old: its own instants say how old it is."""
MAX_ANCHORS_AGE_MS = 30 * DAY_MS
"""Chosen here: anchors are computed daily; after a month without them the shop is another one."""
MAX_ITEM_AGE_MS = 7 * DAY_MS
"""Chosen here: prices and sales are computed daily; a week-old price misleads."""


def _history(view: str, entity: str, prefix: str) -> tuple[FeatureSpec, ...]:
    """Declares the columns of one kind of history; the arrays of a row are equally long."""
    columns: tuple[tuple[str, Dtype, str], ...] = (
        ("item_ids", "strings", "item id, oldest first"),
        ("actions", "int64s", "Action value"),
        ("at_ms", "int64s", "Unix ms"),
    )
    return tuple(
        FeatureSpec(f"{prefix}_{name}", view, entity, dtype, unit, (), NO_MAX_AGE)
        for name, dtype, unit in columns
    )


def _version(view: str, entity: str, prefix: str, max_age_ms: int | None) -> FeatureSpec:
    """Declares which state a row holds: a feature, as SQLite cuts timestamps to seconds."""
    return FeatureSpec(
        f"{prefix}_version",
        view,
        entity,
        "int64",
        f"available_at_ms * 2^{COUNT_BITS} + events in the row's history, at most {MAX_COUNT}",
        0,
        max_age_ms,
    )


RECENT_VIEW = "user_recent_history"
"""View of the newest events of a user."""
MEMORY_VIEW = "user_category_memory"
"""View of the newest events of a user in one category."""
PROFILE_VIEW = "user_profile"
"""View of what the shop knows of a user besides events."""
ANCHORS_VIEW = "query_anchors"
"""View of a query's preference anchors."""
ITEM_VIEW = "item_daily"
"""View of an item's daily statistics; the server reads them from the item table instead."""
SERVICE_VIEWS: tuple[str, ...] = (RECENT_VIEW, MEMORY_VIEW, PROFILE_VIEW, ANCHORS_VIEW)
"""Views in `FEATURE_SERVICE`, all read in one call."""

PREFIXES: dict[str, str] = {
    RECENT_VIEW: "recent",
    MEMORY_VIEW: "memory",
    PROFILE_VIEW: "profile",
    ANCHORS_VIEW: "anchors",
    ITEM_VIEW: "item",
}
"""View -> how the name of its `version` begins."""

FEATURES: tuple[FeatureSpec, ...] = (
    *_history(RECENT_VIEW, "user", "recent"),
    _version(RECENT_VIEW, "user", "recent", NO_MAX_AGE),
    *_history(MEMORY_VIEW, "user_category", "memory"),
    _version(MEMORY_VIEW, "user_category", "memory", NO_MAX_AGE),
    *(
        FeatureSpec(name, PROFILE_VIEW, "user", "string", "label", "unknown", NO_MAX_AGE)
        for name in ("age_group", "income_group", "household_size")
    ),
    _version(PROFILE_VIEW, "user", "profile", NO_MAX_AGE),
    *(
        FeatureSpec(name, ANCHORS_VIEW, "query", "strings", unit, (), MAX_ANCHORS_AGE_MS)
        for name, unit in (
            ("exposed_item_ids", "item id, most exposed first"),
            ("clicked_item_ids", "item id, most clicked first"),
            ("ordered_item_ids", "item id, most ordered first"),
        )
    ),
    FeatureSpec(
        "num_query_requests", ANCHORS_VIEW, "query", "int64", "requests", 0, MAX_ANCHORS_AGE_MS
    ),
    _version(ANCHORS_VIEW, "query", "anchors", MAX_ANCHORS_AGE_MS),
    FeatureSpec("chain_sales", ITEM_VIEW, "item", "int64", "order lines", 0, MAX_ITEM_AGE_MS),
    FeatureSpec("price_now", ITEM_VIEW, "item", "float32", "currency units", 0.0, MAX_ITEM_AGE_MS),
    FeatureSpec(
        "price_usual", ITEM_VIEW, "item", "float32", "currency units", 0.0, MAX_ITEM_AGE_MS
    ),
    _version(ITEM_VIEW, "item", "item", MAX_ITEM_AGE_MS),
)
"""Every feature, by view."""

LIST_FEATURES: tuple[str, ...] = (
    "log_display_rank",
    "price_rank",
    "log_price_over_list",
    "log_other_clickers",
)
"""What a list that was shown says of its items, as `training/page_features.py` computes it: 0
where there is no list, as where a shop's own items are retrieved and ranked."""


def features_of(view: str) -> tuple[FeatureSpec, ...]:
    """Lists the features of a view, in the order of the table."""
    return tuple(spec for spec in FEATURES if spec.view == view)


def join_keys_of(view: str) -> tuple[str, ...]:
    """Names the join keys of a view."""
    return ENTITY_KEYS[features_of(view)[0].entity]


def version_at(available_at_ms: int, num_events: int = 0) -> int:
    """Packs the version of a row: newer states of one key have greater versions.

    A history's state is the set of events in it, and events are only ever added, so the version
    is a function of that state: two writers that fold the same log agree without asking.

    Args:
        available_at_ms: From when on the row may be read, from 0 on.
        num_events: Events folded into the row's history; 0 for rows that are made at once.
    """
    return available_at_ms << COUNT_BITS | min(num_events, MAX_COUNT)


def available_at_ms_of(version: int) -> int:
    """Says from when on a row of this version may be read."""
    return version >> COUNT_BITS


def is_newer(version: int, *, stored: int) -> bool:
    """Says whether a row replaces the stored one; no store may decide otherwise.

    Of equal versions the later write wins, but for a counted one: that is the same state again.
    """
    is_counted = 0 < version & MAX_COUNT < MAX_COUNT
    return version > stored or (version == stored and not is_counted)


def is_fresh(view: str, *, available_at_ms: int, as_of_ms: int) -> bool:
    """Says whether a view's row is young enough to be used; no store may decide otherwise.

    Feast does not enforce its own `ttl` on online reads. A row from after `as_of_ms` is fresh:
    the context drops the events in it that lie in the future.
    """
    max_age_ms = features_of(view)[0].max_age_ms
    return max_age_ms is None or as_of_ms - available_at_ms <= max_age_ms


def feature_schema_digest() -> str:
    """Hashes the feature table, the lists' features and the service's name: 32 digits."""
    document = {
        "service": FEATURE_SERVICE,
        "entities": ENTITY_KEYS,
        "views": SERVICE_VIEWS,
        "features": [asdict(spec) for spec in FEATURES],
        "list_features": LIST_FEATURES,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
