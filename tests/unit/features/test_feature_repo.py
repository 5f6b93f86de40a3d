"""The Feast repository says what the feature table says."""

import sqlite3

import pytest
import yaml

from onepiece.features.declarations import load_declarations
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.schema import (
    FEATURE_SERVICE,
    FEATURES,
    SERVICE_VIEWS,
    features_of,
    join_keys_of,
)

pytestmark = pytest.mark.integration


def test_the_views_are_those_of_the_feature_table(repository):
    from feast import FeatureView

    declared = load_declarations(repository / "feature_repo")

    views = {value.name: value for value in declared if isinstance(value, FeatureView)}
    assert set(views) == {spec.view for spec in FEATURES}
    for name, view in views.items():
        specs = features_of(name)
        fields = [field.name for field in view.schema if field.name not in join_keys_of(name)]
        assert sorted(fields) == sorted(spec.name for spec in specs)
        assert view.ttl.total_seconds() * 1_000 == (specs[0].max_age_ms or 0)


def test_the_service_holds_every_view_that_a_request_reads(repository):
    from feast import FeatureService

    declared = load_declarations(repository / "feature_repo")

    (service,) = [value for value in declared if isinstance(value, FeatureService)]
    assert service.name == FEATURE_SERVICE
    assert {projection.name for projection in service.feature_view_projections} == set(
        SERVICE_VIEWS
    )


@pytest.mark.parametrize(
    ("file", "online"), [("feature_store.yaml", "sqlite"), ("feature_store.redis.yaml", "redis")]
)
def test_feasts_own_files_agree_with_our_settings(repository, tmp_path, file, online):
    from onepiece.features.feast_store import repo_config

    ours = repo_config(FeatureStoreSettings(folder=tmp_path, online=online))
    text = yaml.safe_load((repository / "feature_repo" / file).read_text())

    assert text["project"] == ours.project
    assert text["online_store"]["type"] == ours.online_store.type == online
    assert text["offline_store"]["type"] == ours.offline_store.type
    assert text["entity_key_serialization_version"] == ours.entity_key_serialization_version


def test_readers_and_a_writer_of_sqlite_do_not_wait_for_each_other(repository, tmp_path):
    from onepiece.features.feast_store import FeastStore

    settings = FeatureStoreSettings(folder=tmp_path / "store")
    FeastStore.create(repository / "feature_repo", settings).close()

    connection = sqlite3.connect(tmp_path / "store" / "online.db")
    mode = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()

    assert mode == ("wal",)
