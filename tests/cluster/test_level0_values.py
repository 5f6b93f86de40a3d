"""Level 0: every value is described, allowed and read, and the tables are made of them."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onepiece import generated_docs
from onepiece.chart_values import Value, read_values

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

CHART, CI_VALUES = rendering.CHART, rendering.CI_VALUES
by_file = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)


def test_every_value_is_described():
    schema = json.loads((CHART / "values.schema.json").read_text())

    found = list(_undescribed(schema, schema["$defs"], "values"))
    for name, definition in schema["$defs"].items():
        found += _undescribed(definition, schema["$defs"], name)
    assert not found


def test_every_default_is_allowed_by_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(values)


def test_every_value_is_read_by_a_template():
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
    unread = [
        value.path
        for value in _leaves(read_values(CHART))
        if not re.search(rf"\b{re.escape(value.path.rpartition('.')[2])}\b", templates)
    ]

    assert not unread


def test_the_table_and_the_schema_are_those_of_the_values():
    fresh = generated_docs.pages(rendering.ROOT)

    for name in ("README.md", "values.schema.json"):
        assert fresh[f"charts/onepiece/{name}"] == (CHART / name).read_text(), "run `make docs`"


def test_the_chart_installs_the_version_that_it_is_part_of():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (rendering.ROOT / "pyproject.toml").read_text()

    assert f'version = "{chart["appVersion"]}"' in project


def _leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        yield from _leaves(value.children) if value.children else (value,)


def _undescribed(schema: Any, definitions: dict[str, Any], where: str) -> Iterator[str]:
    """Finds properties without a description, and objects that take any property."""
    for name, below in schema.get("properties", {}).items():
        target = definitions[below["$ref"].rpartition("/")[2]] if "$ref" in below else {}
        if not (below.get("description") or target.get("description")):
            yield f"{where}.{name}"
        yield from _undescribed(below, definitions, f"{where}.{name}")
    if "properties" in schema and schema.get("additionalProperties") is not False:
        yield f"{where} takes any property"
