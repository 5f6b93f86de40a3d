"""The event schema: the one definition of what a shop tells the platform.

An event is keyed by its user, so that one user's events stay in order. `at_ms` is when it
happened at the shopper; `received_at_ms` is when the platform accepted it. Both come from
the caller: nothing here reads a clock.
"""

import hashlib
import re
from enum import IntEnum
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from onepiece.errors import InvalidEvent
from onepiece.parsing import explain

SCHEMA_MAJOR, SCHEMA_MINOR = 1, 1
"""The schema's version: a new minor adds optional fields or kinds, a new major breaks readers.
1.0: exposure, impression, click, cart, order. 1.1: refund, erasure, `schema_version`."""
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"
"""What this code writes."""
MIN_AT_MS = 100_000_000_000
"""1973-03-03 UTC; any present time given in seconds is below it, and so is refused."""
MAX_AT_MS = 4_102_444_800_000
"""2100-01-01 UTC."""
DAY_MS = 86_400_000
"""One UTC day."""
MAX_IDENTIFIER_LENGTH = 128
"""Chosen here: longer than any real key, short enough to index and to log."""
MAX_LIST_ITEMS = 1_000
"""Items in one answer or order; chosen here, far above what a page or basket holds."""

Identifier = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=MAX_IDENTIFIER_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]
"""An opaque id: 1 to 128 characters, no control characters (so no newline)."""
Instant = Annotated[int, Field(ge=MIN_AT_MS, le=MAX_AT_MS, strict=True)]
"""Unix time, UTC, in milliseconds."""
SchemaVersion = Annotated[
    str,
    StringConstraints(
        pattern=rf"^{SCHEMA_MAJOR}\.({'|'.join(str(minor) for minor in range(SCHEMA_MINOR + 2))})$"
    ),
]
"""A version that this code reads: the own major, up to the next minor."""
Price = Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)]
"""Price of one unit, in units of `currency`; never negative, NaN or infinite."""
Probability = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
"""A probability in (0, 1]."""


class Action(IntEnum):
    """What a user did with an item, from easy and dense to hard and sparse; 0 is padding."""

    CLICK = 1
    CART = 2
    ORDER = 3


class _Event(BaseModel):
    """What every event has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: SchemaVersion = SCHEMA_VERSION
    """Version of the schema by which it was written; what has none is of 1.0, a part of this."""
    event_id: Identifier
    """Unique per event; a second event with this id is a duplicate and changes nothing."""
    user_id: Identifier
    """The shopper, and the key of the log."""
    at_ms: Instant
    """When it happened."""
    received_at_ms: Instant
    """When the platform accepted it; never before `at_ms`."""

    @model_validator(mode="after")
    def _is_not_from_the_future(self) -> Self:
        if self.at_ms > self.received_at_ms:
            raise ValueError(
                f"at_ms is {self.at_ms}, after received_at_ms ({self.received_at_ms}): an event "
                "cannot arrive before it happened; correct the sender's clock"
            )
        return self


class Exposure(_Event):
    """What the platform answered: the items of one request, best first, and who chose them.

    `at_ms` is the instant that the answer was made for: nothing later was known to it.
    """

    kind: Literal["exposure"] = "exposure"
    request_id: Identifier
    query_id: Identifier
    """The query's normalised words."""
    store_id: Identifier
    item_ids: tuple[Identifier, ...] = Field(max_length=MAX_LIST_ITEMS)
    propensities: tuple[Probability, ...] | None = None
    """Probability of each item at its place given the places above; None if not randomised."""
    arms: dict[Identifier, Identifier] = Field(default_factory=dict)
    """Experiment layer -> arm that answered; empty outside an experiment."""
    model_version: str = ""
    """Version of the bundle that answered; empty if no model did."""
    context_digest: str = ""
    """Digest of the context the model read, so that it can be recomputed and compared."""
    context_parts: dict[Identifier, str] = Field(default_factory=dict)
    """Part of what the model read -> its digest, to say where a difference is; empty if no model
    answered."""
    degraded_by: str = ""
    """Why a fallback answered; empty if none did."""

    @model_validator(mode="after")
    def _propensities_match_the_items(self) -> Self:
        if self.propensities is not None and len(self.propensities) != len(self.item_ids):
            raise ValueError(
                f"{len(self.propensities)} propensities for {len(self.item_ids)} item_ids; "
                "give one per item or none"
            )
        return self


class Impression(_Event):
    """What the shopper really saw of an answer, from the top."""

    kind: Literal["impression"] = "impression"
    request_id: Identifier
    query_id: Identifier
    item_ids: tuple[Identifier, ...] = Field(min_length=1, max_length=MAX_LIST_ITEMS)


class Click(_Event):
    """The shopper opened an item."""

    kind: Literal["click"] = "click"
    request_id: Identifier | None = None
    """The answer that led to it; None if it came from elsewhere."""
    query_id: Identifier | None = None
    item_id: Identifier


class Cart(_Event):
    """The shopper put an item into the basket."""

    kind: Literal["cart"] = "cart"
    request_id: Identifier | None = None
    query_id: Identifier | None = None
    item_id: Identifier
    quantity: int = Field(default=1, ge=1, le=1_000_000)


class OrderLine(BaseModel):
    """One item of an order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: Identifier
    quantity: int = Field(ge=1, le=1_000_000)
    unit_price: Price
    """Price paid for one unit."""
    request_id: Identifier | None = None
    """The answer that led to it; None if it came from elsewhere, such as a shop's till."""
    query_id: Identifier | None = None


class Order(_Event):
    """The shopper paid for a basket."""

    kind: Literal["order"] = "order"
    order_id: Identifier
    store_id: Identifier
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    """ISO 4217 code of every `unit_price`."""
    lines: tuple[OrderLine, ...] = Field(min_length=1, max_length=MAX_LIST_ITEMS)


class Refund(_Event):
    """The shop took an order back, whole or in part: a cancellation, a return."""

    kind: Literal["refund"] = "refund"
    order_id: Identifier
    ordered_at_ms: Instant
    """`at_ms` of the order; with the item, it says which interaction is void."""
    item_ids: tuple[Identifier, ...] = Field(min_length=1, max_length=MAX_LIST_ITEMS)
    """Items whose lines are void; all of the order's for a cancellation."""

    @model_validator(mode="after")
    def _is_after_the_order(self) -> Self:
        if self.ordered_at_ms > self.at_ms:
            raise ValueError(
                f"ordered_at_ms is {self.ordered_at_ms}, after at_ms ({self.at_ms}): an order "
                "cannot be refunded before it was made"
            )
        return self


class Erasure(_Event):
    """The user asked to be forgotten: all that was received of her until then is void."""

    kind: Literal["erasure"] = "erasure"


Event = Exposure | Impression | Click | Cart | Order | Refund | Erasure
"""Any event; `kind` says which, and names its topic."""

EVENT_KINDS: tuple[str, ...] = (
    "exposure",
    "impression",
    "click",
    "cart",
    "order",
    "refund",
    "erasure",
)

EVENT_MODELS: dict[str, type[_Event]] = dict(
    zip(EVENT_KINDS, (Exposure, Impression, Click, Cart, Order, Refund, Erasure), strict=True)
)
"""Kind -> its model."""

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class _Version(BaseModel):
    """What is read of an event that could not be read whole."""

    schema_version: str = SCHEMA_VERSION


def parse_event(payload: bytes | str) -> Event:
    """Reads one event from JSON, of this version of the schema, an earlier minor or the next.

    Fields that only the next minor version has are dropped: a reader may be one release behind
    its writers.

    Raises:
        InvalidEvent: Malformed JSON, an unknown field or kind, a value out of bounds, or another
            version of the schema.
    """
    try:
        return _ADAPTER.validate_json(payload)
    except ValidationError as error:
        fault = error
    version = _version_of(payload)
    if version == f"{SCHEMA_MAJOR}.{SCHEMA_MINOR + 1}":
        try:
            return _ADAPTER.validate_json(payload, extra="ignore")
        except ValidationError as error:
            fault = error
    elif re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version) and not _is_known(version):
        raise InvalidEvent(
            f"invalid event: schema_version is {version}; this reader knows {SCHEMA_MAJOR}.0 to "
            f"{SCHEMA_MAJOR}.{SCHEMA_MINOR + 1}: upgrade readers before senders"
        ) from fault
    raise InvalidEvent(f"invalid event: {explain(fault, whole='event')}") from fault


def _version_of(payload: bytes | str) -> str:
    """Reads the version alone; empty where there is no text of that name."""
    try:
        return _Version.model_validate_json(payload, extra="ignore").schema_version
    except ValidationError:
        return ""


def _is_known(version: str) -> bool:
    major, _, minor = version.partition(".")
    return int(major) == SCHEMA_MAJOR and int(minor) <= SCHEMA_MINOR + 1


def dump_event(event: Event) -> bytes:
    """Writes one event as compact JSON, UTF-8; `parse_event` reads it back equal."""
    return event.model_dump_json(exclude_none=True).encode()


def partition_of(user_id: str, num_partitions: int) -> int:
    """Says which partition keeps a user's events: stable over processes and machines."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_partitions
