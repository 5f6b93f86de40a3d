"""Settings of the feature store, and the declarations that it applies."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from onepiece.errors import InvalidInput, NotFound
from onepiece.features.declarations import load_declarations
from onepiece.features.feast_settings import FeatureStoreSettings, load_settings, save_settings
from onepiece.features.redis_settings import RedisSettings

REDIS = RedisSettings(address="host:1", is_tls=True, ca_file=Path("ca.pem"), timeout_s=2.0)


def test_settings_are_read_back_also_after_the_folder_moved(tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    save_settings(FeatureStoreSettings(folder=first, online="redis", redis=REDIS))

    first.rename(tmp_path / "second")

    assert load_settings(tmp_path / "second") == FeatureStoreSettings(
        folder=tmp_path / "second", online="redis", redis=REDIS
    )


def test_a_folder_without_a_store_is_said_to_have_none(tmp_path):
    with pytest.raises(NotFound, match="features apply"):
        load_settings(tmp_path)


def test_changed_settings_are_refused(tmp_path):
    (tmp_path / "store.json").write_text('{"online": "mysql"}')

    with pytest.raises(InvalidInput, match=r"store\.json"):
        load_settings(tmp_path)


@pytest.mark.parametrize("given", [{"online": "mysql"}, {"project": "A b"}, {"port": 1}])
def test_what_is_not_allowed_is_refused(tmp_path, given):
    with pytest.raises(ValidationError):
        FeatureStoreSettings(folder=tmp_path, **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"address": "redis://user:secret@host:1"}, "address"),
        ({"address": "host"}, "address"),
        ({"password": "secret"}, "password"),
        ({"username": "server"}, "password_file"),
        ({"ca_file": "ca.pem"}, "is_tls"),
        ({"is_tls": True, "cert_file": "client.pem"}, "key_file"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_settings_of_redis_that_do_not_fit_are_refused(given, told):
    with pytest.raises(ValidationError, match=told):
        RedisSettings(**given)


def test_declarations_are_imported_flatly_and_forgotten(tmp_path):
    (tmp_path / "entities.py").write_text("USER = object()\n")
    (tmp_path / "views.py").write_text("from entities import USER\nVIEW = object()\n")
    (tmp_path / "services.py").write_text("from views import USER, VIEW\nSERVICE = [USER, VIEW]\n")

    declared = load_declarations(tmp_path)

    service = next(value for value in declared if isinstance(value, list))
    assert all(sum(value is other for other in declared) == 1 for value in service)
    assert not {"entities", "views", "services"} & set(sys.modules)
    assert str(tmp_path) not in sys.path


def test_a_folder_that_is_no_feature_repository_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"entities\.py"):
        load_declarations(tmp_path)
