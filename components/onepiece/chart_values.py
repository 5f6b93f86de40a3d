"""Makes the schema and the table of the Helm chart's values from the comments in values.yaml.

A comment that starts with `--` says what a value is; one that starts with `@schema` adds JSON
Schema to what the default tells. Settings of processes are described by their own models, so that
the chart refuses what they would refuse. Nothing may be left undescribed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from onepiece.errors import InvalidInput
from onepiece.events.collector_settings import CollectorSettings
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.experiment.plan import ExperimentPlan
from onepiece.experiment.rollout import RolloutPlan
from onepiece.experiment.router_settings import RouterSettings
from onepiece.features.recipe import FeaturesRecipe
from onepiece.serving.settings import ServingSettings

_SETTINGS: Mapping[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "collectorSettings": (CollectorSettings, tuple(CollectorSettings.model_fields)),
    "kafkaSettings": (KafkaSettings, ("timeout_s", "transaction_timeout_s", "session_timeout_s")),
    "routerSettings": (RouterSettings, tuple(RouterSettings.model_fields)),
    # The currency is the shop's, for jobs as well: shop.itemCurrency.
    "servingSettings": (
        ServingSettings,
        tuple(name for name in ServingSettings.model_fields if name != "item_currency"),
    ),
}
"""Name of a definition -> the settings, and which of them may be given in values."""
_RECIPES: tuple[type[BaseModel], ...] = (ExperimentPlan, FeaturesRecipe, RolloutPlan)
"""What is written into a file as it is given."""
_TYPES = {
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:str": "string",
}


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart, as its comment and its default say."""

    path: str
    """Keys from the root, joined by dots."""
    description: str
    default: Any
    schema: Mapping[str, Any]
    """What it may be, without its children."""
    children: "tuple[Value, ...]"
    """Values below it; none if its schema describes what is in it."""


def read_values(chart: Path) -> tuple[Value, ...]:
    """Reads values.yaml with its comments.

    Raises:
        InvalidInput: A value has no description, or its type cannot be told.
    """
    text = (chart / "values.yaml").read_text()
    root = yaml.compose(text)
    return tuple(_values_of(root, text.splitlines(), "")) if root else ()


def _values_of(mapping: yaml.Node, lines: list[str], above: str) -> Iterator[Value]:
    for key, node in mapping.value:
        path = f"{above}{key.value}"
        description, extra = _comment(lines, key.start_mark.line, path)
        default = yaml.safe_load(yaml.serialize(node))
        if isinstance(node, yaml.MappingNode) and not extra:
            if not node.value:
                raise InvalidInput(f"{path} is empty and its type unknown; add a `# @schema` to it")
            children = tuple(_values_of(node, lines, f"{path}."))
            yield Value(path, description, default, {"type": "object"}, children)
            continue
        known = {"type": _TYPES[node.tag]} if node.tag in _TYPES else {}
        if not known and not extra:
            raise InvalidInput(f"the type of {path} cannot be told; add a `# @schema` to it")
        if "$ref" in extra or "enum" in extra:
            known = {}
        yield Value(path, description, default, {**known, **extra}, ())


def _comment(lines: list[str], at: int, path: str) -> tuple[str, dict[str, Any]]:
    """Finds the description and the schema in the comment right above a line."""
    first = at
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    comment = [line.strip().removeprefix("#").strip() for line in lines[first:at]]
    starts = [place for place, line in enumerate(comment) if line.startswith("-- ")]
    if not starts:
        raise InvalidInput(f"{path} is not described; write `# -- ...` above it")
    words, schema = [], {}
    for line in comment[starts[-1] :]:
        if line.startswith("@schema "):
            schema = yaml.safe_load(line.removeprefix("@schema "))
        else:
            words.append(line.removeprefix("-- "))
    return " ".join(words), schema


def values_schema(chart: Path) -> str:
    """Makes values.schema.json: nothing is allowed that is not described."""
    definitions = yaml.safe_load((chart / "values.definitions.yaml").read_text())
    definitions |= {name: _settings_schema(*of) for name, of in _SETTINGS.items()}
    for recipe in _RECIPES:
        described = recipe.model_json_schema()
        definitions |= described.pop("$defs", {})
        # Empty for none, or for its defaults.
        described["anyOf"] = [{"required": described.pop("required", [])}, {"maxProperties": 0}]
        definitions[recipe.__name__] = described
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the OnePiece chart; generated by `make docs`",
        **_object_schema(read_values(chart)),
        "$defs": definitions,
    }
    return json.dumps(schema, indent=1) + "\n"


def _object_schema(values: tuple[Value, ...]) -> dict[str, Any]:
    properties = {}
    for value in values:
        below = _object_schema(value.children) if value.children else {}
        described = {"description": value.description}
        properties[value.path.rpartition(".")[2]] = {**described, **value.schema, **below}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _settings_schema(model: type[BaseModel], names: tuple[str, ...]) -> dict[str, Any]:
    fields = model.model_json_schema()["properties"]
    kept = ("type", "description", "enum", "pattern")
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    properties = {
        name: {key: fields[name][key] for key in (*kept, *bounds) if key in fields[name]}
        for name in names
    }
    return {
        "description": (model.__doc__ or "").splitlines()[0],
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def readme(chart: Path) -> str:
    """Makes the chart's README.md: its head, and a table of all values."""
    definitions = json.loads(values_schema(chart))["$defs"]
    lines = [(chart / "README.head.md").read_text().rstrip(), "", "## Values", ""]
    lines += ["| value | default | what it is |", "|---|---|---|"]
    lines += list(_rows(read_values(chart)))
    for name in ("stage", "arm", "release", *_SETTINGS):
        definition = definitions[name]
        lines += ["", f"### `{name}`", "", str(definition["description"]), ""]
        lines += ["| key | what it is |", "|---|---|"]
        lines += [
            f"| `{key}` | {_cell(said['description'])} |"
            for key, said in definition["properties"].items()
        ]
    return "<!-- Generated by `make docs`; do not edit. -->\n\n" + "\n".join(lines) + "\n"


def _rows(values: tuple[Value, ...]) -> Iterator[str]:
    for value in values:
        if value.children:
            yield f"| **{value.path}** | | {_cell(value.description)} |"
            yield from _rows(value.children)
            continue
        reference = str(value.schema.get("$ref", "")).rpartition("/")[2]
        allowed = value.schema.get("enum")
        more = f" One of {', '.join(map(str, allowed))}." if allowed else ""
        if reference in ("stage", *_SETTINGS):
            more = f" See [{reference}](#{reference.lower()})."
        default = json.dumps(value.default, ensure_ascii=False)
        yield f"| {value.path} | `{_cell(default)}` | {_cell(value.description)}{more} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
