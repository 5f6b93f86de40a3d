"""Item updates: what the shop says of an item's price and stock between two daily tables."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from onepiece.errors import InvalidEvent
from onepiece.events.schema import Identifier, Instant
from onepiece.parsing import explain


class ItemUpdate(BaseModel):
    """The whole state of an item from an instant on; the newest by `at_ms` counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal["1.0"] = Field("1.0", description="Version of this message.")
    item_id: Identifier = Field(description="Which item; the key of the topic.")
    price: float = Field(
        gt=0.0,
        le=1e9,
        allow_inf_nan=False,
        description="Price of one unit from then on, in units of `currency`.",
    )
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field(
        description="ISO 4217 code of the price."
    )
    is_available: bool = Field(True, strict=True, description="Whether it can be bought.")
    at_ms: Instant = Field(
        description="From when on it holds, Unix ms; of two updates the one of the later instant "
        "wins, of equal instants the one that was sent later."
    )


def parse_item_update(payload: bytes | str) -> ItemUpdate:
    """Reads one update from JSON.

    Raises:
        InvalidEvent: Malformed JSON, an unknown field, or a value out of bounds.
    """
    try:
        return ItemUpdate.model_validate_json(payload)
    except ValidationError as error:
        raise InvalidEvent(f"invalid item update: {explain(error, whole='update')}") from error


def dump_item_update(update: ItemUpdate) -> bytes:
    """Writes one update as compact JSON, UTF-8; `parse_item_update` reads it back equal."""
    return update.model_dump_json().encode()


def parse_item_updates(lines: Iterable[bytes]) -> list[ItemUpdate]:
    """Reads updates from JSON, one a line; empty lines are passed over.

    Raises:
        InvalidEvent: A line is no update; says which and why.
    """
    updates = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            updates.append(parse_item_update(line))
        except InvalidEvent as error:
            raise InvalidEvent(f"line {number}: {error}; nothing was taken") from error
    return updates
