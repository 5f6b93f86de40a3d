"""The Feast repository says what the feature table says."""

import sqlite3

import pytest
import yaml

from onepiece.errors import FeatureStoreUnavailable
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.declarations import load_declarations
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.schema import (
    FEATURE_SERVICE,
    FEATURES,
    SERVICE_VIEWS,
    features_of,
    join_keys_of,
)
from onepiece.features.store import SignalKey

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


def test_nobody_writes_to_sqlite_between_the_comparison_and_the_write(repository, tmp_path):
    from onepiece.features.feast_store import FeastStore

    settings = FeatureStoreSettings(folder=tmp_path / "store")
    first = FeastStore.create(repository / "feature_repo", settings)
    second = FeastStore.open(settings)
    connection_of(second).execute("PRAGMA busy_timeout = 0")
    interrupted: list[str] = []

    def interrupt(statement: str) -> None:
        if statement.startswith("SELECT entity_key, value") and not interrupted:
            interrupted.append(statement)
            with pytest.raises(FeatureStoreUnavailable, match="locked"):
                second.write_histories([history_of(2)])
            interrupted.append("the second had to wait")

    connection_of(first).set_trace_callback(interrupt)
    first.write_histories([history_of(1)])
    connection_of(first).set_trace_callback(None)
    second.write_histories([history_of(2)])

    assert len(interrupted) == 2
    assert len(first.read([SignalKey("user", "q", "milk", 1)])[0].recent) == 2
    first.close()
    second.close()


def connection_of(store) -> sqlite3.Connection:
    feast = store._feast
    return feast._get_provider().online_store._get_conn(feast.config)


def history_of(num_events: int) -> HistoryUpdate:
    events = Interactions(("a",) * num_events, (1,) * num_events, (1,) * num_events)
    return HistoryUpdate("user", 1, events, num_events=num_events)
