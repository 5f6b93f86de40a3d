"""The feature views, one a view of `features/schema.py`."""

from datetime import timedelta

# Flat on purpose: `feast apply` would import `feature_repo.entities` as a second module.
from entities import ENTITIES  # type: ignore[import-not-found]
from feast import FeatureView, Field, FileSource
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
    return FeatureView(
        name=view,
        entities=ENTITIES[specs[0].entity],
        ttl=timedelta(milliseconds=max_age_ms or 0),
        schema=[
            Field(name=spec.name, dtype=DTYPES[spec.dtype], description=spec.unit) for spec in specs
        ],
        source=FileSource(
            name=f"{view}_source",
            path=f"offline/{view}.parquet",
            timestamp_field="event_timestamp",
        ),
    )


USER_RECENT_HISTORY = _declare(RECENT_VIEW)
USER_CATEGORY_MEMORY = _declare(MEMORY_VIEW)
USER_PROFILE = _declare(PROFILE_VIEW)
QUERY_ANCHORS = _declare(ANCHORS_VIEW)
ITEM_DAILY = _declare(ITEM_VIEW)
