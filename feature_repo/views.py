"""The feature views, one a view of `features/schema.py`, each with a source to push to.

`store.push("VIEW_push", rows)` of Feast writes around our comparison of versions. On Redis Feast
itself drops what is not newer, in two steps between which another may write; on SQLite the pushed
row wins, however old. A row pushed without its `*_version` is no row for our reader. Whoever can
call our code writes with `FeastStore.write_rows` instead, which compares on both; whatever was
pushed, the next newer row of the stream or of `onepiece features materialize` replaces it.
"""

from datetime import timedelta

# Flat on purpose: `feast apply` would import `feature_repo.entities` as a second module.
from entities import ENTITIES  # type: ignore[import-not-found]
from feast import FeatureView, Field, FileSource, PushSource
from feast.types import (
    Array,
    ComplexFeastType,
    Float32,
    Int64,
    PrimitiveFeastType,
    String,
)

from onepiece.features.schema import (
    ANCHORS_VIEW,
    ITEM_VIEW,
    MEMORY_VIEW,
    PROFILE_VIEW,
    RECENT_VIEW,
    features_of,
)

DTYPES: dict[str, ComplexFeastType | PrimitiveFeastType] = {
    "string": String,
    "int64": Int64,
    "float32": Float32,
    "strings": Array(String),
    "int64s": Array(Int64),
}


def _declare(view: str) -> FeatureView:
    specs = features_of(view)
    max_age_ms = specs[0].max_age_ms
    rows = FileSource(
        name=f"{view}_source",
        path=f"offline/{view}.parquet",
        timestamp_field="event_timestamp",
    )
    # Items come a day at a time only.
    source = rows if view == ITEM_VIEW else PushSource(name=f"{view}_push", batch_source=rows)
    return FeatureView(
        name=view,
        entities=ENTITIES[specs[0].entity],
        ttl=timedelta(milliseconds=max_age_ms or 0),
        schema=[
            Field(name=spec.name, dtype=DTYPES[spec.dtype], description=spec.unit) for spec in specs
        ],
        source=source,
    )


USER_RECENT_HISTORY = _declare(RECENT_VIEW)
USER_CATEGORY_MEMORY = _declare(MEMORY_VIEW)
USER_PROFILE = _declare(PROFILE_VIEW)
QUERY_ANCHORS = _declare(ANCHORS_VIEW)
ITEM_DAILY = _declare(ITEM_VIEW)
