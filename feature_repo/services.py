"""The feature services: one a model version, read by training and by serving."""

from feast import FeatureService
from views import (  # type: ignore[import-not-found]
    QUERY_ANCHORS,
    USER_CATEGORY_MEMORY,
    USER_PROFILE,
    USER_RECENT_HISTORY,
)

from onepiece.features.schema import FEATURE_SERVICE

ONEPIECE = FeatureService(
    name=FEATURE_SERVICE,
    features=[USER_RECENT_HISTORY, USER_CATEGORY_MEMORY, USER_PROFILE, QUERY_ANCHORS],
)
