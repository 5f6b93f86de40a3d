"""Feast's file offline store with a point-in-time join that keeps every question.

A plugin: Feast loads it by the name in its configuration, and `FeastStore` never calls it.
"""

from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, RepoConfig
from feast.infra.offline_stores.dask import (
    DaskOfflineStore,
    DaskOfflineStoreConfig,
    DaskRetrievalJob,
)
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry

from onepiece.features.as_of_join import join_file
from onepiece.features.view_rows import EVENT_TIMESTAMP


class AsOfOfflineStoreConfig(DaskOfflineStoreConfig):
    """Configuration of `AsOfOfflineStore`; Feast finds it by its name."""

    type: Literal["onepiece.features.feast_offline.AsOfOfflineStore"] = (
        "onepiece.features.feast_offline.AsOfOfflineStore"  # type: ignore[assignment]
    )


class AsOfOfflineStore(DaskOfflineStore):
    """Feast's file store with another point-in-time join; all else is inherited.

    The inherited join merges every row of a key with every question, arrays included; it also
    drops questions whose key has only later rows, and keeps one of several questions that a
    user asks at one instant. Where it keeps a question both find the same row.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **options: Any,
    ) -> DaskRetrievalJob:
        """Answers each row of `entity_df` in order; called by Feast."""
        features: dict[str, list[str]] = {}
        for reference in feature_refs:
            view, _, feature = reference.partition(":")
            features.setdefault(view, []).append(feature)

        def evaluate() -> pa.Table:
            answer = pa.Table.from_pandas(entity_df, preserve_index=False)
            for view in feature_views:
                source = cast(FileSource, view.batch_source)
                joined = join_file(
                    Path(FileSource.get_uri_for_file_path(config.repo_path, source.path)),
                    answer,
                    keys=view.join_keys,
                    features=features[view.name],
                    instant=EVENT_TIMESTAMP,
                    max_age_us=int(view.ttl.total_seconds() * 1e6) if view.ttl else None,
                )
                prefix = f"{view.name}__" if full_feature_names else ""
                for name in joined.column_names:
                    answer = answer.append_column(prefix + name, joined[name])
            return answer

        instants = entity_df[EVENT_TIMESTAMP]
        return _AsOfJob(
            evaluation_function=evaluate,
            full_feature_names=full_feature_names,
            repo_path=str(config.repo_path),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entity_df.columns if name != EVENT_TIMESTAMP],
                min_event_timestamp=instants.min(),
                max_event_timestamp=instants.max(),
            ),
        )


class _AsOfJob(DaskRetrievalJob):
    """A retrieval whose answer is an Arrow table."""

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return cast(pd.DataFrame, self._to_arrow_internal(timeout).to_pandas())

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.evaluation_function()
