"""What a search varies: fields of a training recipe, and the values that each may take."""

import math
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from onepiece.errors import InvalidRecipe
from onepiece.parsing import explain
from onepiece.training.recipe import TrainingRecipe

BUILT_INTO_THE_DATA = ("context", "examples", "feed", "intents", "pages")
"""Parts of a recipe that the folder of examples was built with: every trial reads one folder."""
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_MOST_COMBINATIONS = 2_000
"""Combinations tried before a value is called impossible; chosen here: they take a second."""


class Dimension(BaseModel):
    """The values that one field may take: exactly one of the three is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uniform: tuple[float, float] | None = Field(
        None, description="Lowest and highest number, all between alike."
    )
    loguniform: tuple[float, float] | None = Field(
        None, description="Lowest and highest number, above 0; all magnitudes between alike."
    )
    choice: tuple[JsonValue, ...] | None = Field(
        None, min_length=1, max_length=1_000, description="Values, all alike."
    )

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        given = sorted(self.model_fields_set)
        ends = self.uniform or self.loguniform
        if len(given) != 1 or (ends is None and self.choice is None):
            raise ValueError(
                f"{', '.join(given) or 'nothing'} is given; give one of uniform: [low, high], "
                "loguniform: [low, high] and choice: [value, ...]"
            )
        if ends is None:
            return self
        low, high = ends
        least = 0.0 if self.loguniform else -math.inf
        if not (least < low < high < math.inf):
            raise ValueError(
                f"{given[0]} is [{low}, {high}]; give two finite numbers, the lower one first"
                + (", both above 0" if self.loguniform else "")
            )
        return self

    def samples(self) -> tuple[JsonValue, ...]:
        """Gives every choice, or both ends of a range and a fraction between them."""
        if self.choice is not None:
            return self.choice
        ends = self.uniform or self.loguniform
        assert ends is not None  # noqa: S101 - the validator sees to it
        low, high = ends
        # Not the middle, which may be a whole number by chance.
        return (low, low + (high - low) / math.e, high)

    def draw(self, random: np.random.Generator) -> JsonValue:
        """Draws one value."""
        if self.choice is not None:
            return self.choice[int(random.integers(len(self.choice)))]
        if self.uniform is not None:
            return float(random.uniform(*self.uniform))
        assert self.loguniform is not None  # noqa: S101 - the validator sees to it
        low, high = self.loguniform
        # Rounding must not carry a draw beyond an end.
        return min(max(math.exp(random.uniform(math.log(low), math.log(high))), low), high)


class SearchSpace(RootModel[dict[str, Dimension]]):
    """Dotted field of `TrainingRecipe` -> its values."""

    model_config = ConfigDict(frozen=True)
    root: dict[str, Dimension] = Field(min_length=1, max_length=100)


def with_values(recipe: TrainingRecipe, values: Mapping[str, JsonValue]) -> TrainingRecipe:
    """Replaces fields of a recipe; the result lists what `recipe` listed, and these.

    Args:
        recipe: What is searched around.
        values: Dotted field -> value.

    Raises:
        InvalidRecipe: There is no such field, its part is off, or the recipe does not allow the
            values together.
    """
    document = recipe.model_dump(mode="json", exclude_unset=True)
    for name, value in values.items():
        current_value(recipe, name)
        *parts, field = name.split(".")
        place = document
        for part in parts:
            place = place.setdefault(part, {})
        place[field] = value
    try:
        return TrainingRecipe.model_validate(document)
    except ValidationError as error:
        raise InvalidRecipe(
            f"the recipe does not allow {_shown(values)}: {explain(error, whole='the recipe')}"
        ) from error


def current_value(recipe: TrainingRecipe, name: str) -> JsonValue:
    """Reads a dotted field of a recipe, as JSON would hold it.

    Raises:
        InvalidRecipe: There is no such field, or the part that has it is off.
    """
    place: Any = recipe
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if place is None:
            off = ".".join(parts[:depth])
            raise InvalidRecipe(
                f"{name} is to be searched and {off} is off in the recipe; turn it on there"
            )
        fields = type(place).model_fields if isinstance(place, BaseModel) else {}
        if part not in fields:
            raise InvalidRecipe(
                f"{name} is no field of the recipe: {part} is unknown; give one of "
                f"{', '.join(sorted(fields)) or 'its values as a whole'}"
            )
        place = getattr(place, part)
    value: JsonValue = _JSON.dump_python(place, mode="json")
    return value


def check_space(space: SearchSpace, recipe: TrainingRecipe) -> None:
    """Refuses what no trial could train, before any trial starts.

    A value that fits with some of the other values and not with others is let through: a trial
    that draws what does not fit fails with its reason.

    Raises:
        InvalidRecipe: A field is unknown, is built into the data or decides what a trial is
            measured by; or one of its values is impossible whatever the others are.
    """
    for name in space.root:
        part = name.split(".")[0]
        if part in BUILT_INTO_THE_DATA:
            raise InvalidRecipe(
                f"{name} is to be searched, and the examples are built with it; build a folder for "
                "each value and search on each"
            )
        if part == "stopping":
            raise InvalidRecipe(
                f"{name} is to be searched, and trials are compared by it; leave it to the recipe"
            )
        current_value(recipe, name)
    for name, dimension in space.root.items():
        others = {other: space.root[other].samples() for other in space.root if other != name}
        for value in dimension.samples():
            _check_value(recipe, name, value, others)


def _check_value(
    recipe: TrainingRecipe, name: str, value: JsonValue, others: Mapping[str, tuple[JsonValue, ...]]
) -> None:
    """Looks for one combination that has this value and is allowed, the recipe's own first."""
    first_error: InvalidRecipe | None = None
    for combination in _combinations(others):
        try:
            with_values(recipe, {name: value, **combination})
            return
        except InvalidRecipe as error:
            first_error = first_error or error
    assert first_error is not None  # noqa: S101 - there is at least one combination
    raise first_error


def _combinations(others: Mapping[str, tuple[JsonValue, ...]]) -> Iterator[dict[str, JsonValue]]:
    yield {}
    for values in islice(product(*others.values()), _MOST_COMBINATIONS):
        yield dict(zip(others, values, strict=True))


def _shown(values: Mapping[str, JsonValue]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())
