"""Schemas once published stay readable: a breaking change fails here, and so does a silent one."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from onepiece.errors import InvalidEvent
from onepiece.events.schema import (
    EVENT_MODELS,
    SCHEMA_MAJOR,
    SCHEMA_MINOR,
    SCHEMA_VERSION,
    parse_event,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "events"
VERSIONS = [f"{SCHEMA_MAJOR}.{minor}" for minor in range(SCHEMA_MINOR + 1)]
CLICK = {
    "kind": "click",
    "event_id": "e1",
    "user_id": "u1",
    "at_ms": 1_500_000_000_000,
    "received_at_ms": 1_500_000_000_000,
    "item_id": "milk",
}
WORDS_ONLY = ("description", "title")


def current_schemas() -> dict[str, Any]:
    return {model.__name__: model.model_json_schema() for model in EVENT_MODELS.values()}


def published(version: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{version}.json").read_text())


def without_words(schema: Any) -> Any:
    """A schema without what only people read."""
    if isinstance(schema, dict):
        return {
            k: without_words(v)
            for k, v in schema.items()
            if not (k in WORDS_ONLY and isinstance(v, str))
        }
    return [without_words(one) for one in schema] if isinstance(schema, list) else schema


def breaks(old: dict[str, Any], new: dict[str, Any], where: str = "") -> list[str]:
    """What a writer of the old schema may send that the new one does not take."""
    found = []
    for name, fields in old.get("$defs", {}).items():
        found += breaks(fields, new.get("$defs", {}).get(name, {}), f"{where}/{name}")
    added = set(new.get("required", ())) - set(old.get("required", ()))
    found += [f"{where}: {name} became required" for name in sorted(added)]
    for name, field in old.get("properties", {}).items():
        at = f"{where}.{name}"
        if name == "schema_version":
            continue
        if name not in new.get("properties", {}):
            found.append(f"{at}: taken out")
            continue
        if without_words(field) != without_words(new["properties"][name]):
            found.append(f"{at}: {without_words(field)} became {new['properties'][name]}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_no_schema_once_published_is_broken(version):
    now = current_schemas()

    found = [
        problem
        for name, schema in published(version).items()
        for problem in (breaks(schema, now[name], name) if name in now else [f"{name}: gone"])
    ]

    assert found == []


def test_the_schema_does_not_change_without_a_new_version():
    # Raise SCHEMA_MINOR, then copy docs/generated/event_schema.json to tests/golden/events.
    assert without_words(current_schemas()) == without_words(published(SCHEMA_VERSION))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda click: click["properties"].pop("item_id"), "Click.item_id: taken out"),
        (lambda click: click["required"].append("query_id"), "Click: query_id became required"),
        (
            lambda click: click["properties"]["item_id"].update(maxLength=64),
            "Click.item_id: {'maxLength': 128",
        ),
    ],
)
def test_a_breaking_change_is_found(change, said):
    old = published(SCHEMA_VERSION)["Click"]
    new = copy.deepcopy(old)
    change(new)

    found = breaks(old, new, "Click")

    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_new_optional_field_breaks_nothing():
    old = published(SCHEMA_VERSION)["Click"]
    new = copy.deepcopy(old)
    new["properties"]["device"] = {"type": "string", "default": ""}

    assert breaks(old, new, "Click") == []


def test_an_event_without_a_version_is_read():
    assert parse_event(json.dumps(CLICK)).schema_version == SCHEMA_VERSION


@pytest.mark.parametrize("minor", range(SCHEMA_MINOR + 2))
def test_earlier_versions_and_the_next_are_read(minor):
    event = parse_event(json.dumps({**CLICK, "schema_version": f"{SCHEMA_MAJOR}.{minor}"}))

    assert event.item_id == "milk"


def test_new_fields_of_the_next_version_are_dropped_and_those_of_this_one_refused():
    following = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR + 1}"
    event = parse_event(json.dumps({**CLICK, "schema_version": following, "device": "phone"}))

    assert event.item_id == "milk"
    with pytest.raises(InvalidEvent, match=r"unknown key click\.device"):
        parse_event(json.dumps({**CLICK, "device": "phone"}))
    with pytest.raises(InvalidEvent, match=r"item_id"):
        parse_event(json.dumps({**CLICK, "schema_version": following, "item_id": ""}))


@pytest.mark.parametrize(
    "version", [f"{SCHEMA_MAJOR}.{SCHEMA_MINOR + 2}", f"{SCHEMA_MAJOR + 1}.0", "0.9"]
)
def test_other_versions_are_refused_with_what_to_do(version):
    with pytest.raises(InvalidEvent, match=f"schema_version is {version}; .*upgrade readers"):
        parse_event(json.dumps({**CLICK, "schema_version": version, "new": 1}))
