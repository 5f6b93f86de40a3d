"""The serving schema: what may be asked, and what is answered, over REST and gRPC alike.

`onepiece.proto` has the same fields; a test keeps the two equal. A gRPC message is turned into
a dict and checked by these models, so both doors refuse the same things in the same words.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from onepiece.errors import InvalidRequest, OnePieceError, PayloadTooLarge
from onepiece.events.catalogue import normalise_query
from onepiece.events.schema import Identifier, Instant
from onepiece.parsing import explain

RETRIEVE = "retrieve"
PRE_RANK = "prerank"
RECOMMEND = "recommend"
"""Methods, as in REST's paths and in the metrics."""
MAX_CANDIDATES = 1_000
"""Items in one pre-rank request; chosen here: a cascade hands on a few hundred (OnePiece 2)."""
MAX_COUNT = 1_000
"""Items in one answer; the bound of a logged exposure (`events.schema.MAX_LIST_ITEMS`)."""
MAX_BODY_BYTES = 1_048_576
"""1 MiB, chosen here: 1,000 candidates with the longest ids allowed need a seventh of it."""


def _as_query_id(words: str) -> str:
    query_id = normalise_query(words)
    if not query_id:
        raise ValueError("holds only blanks; give the words of the query")
    return query_id


QueryWords = Annotated[Identifier, AfterValidator(_as_query_id)]
"""Words as typed, 1 to 128 characters; normalised to a query id."""


class _Request(BaseModel):
    """What every request has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: Identifier = Field(description="Chosen by the caller; comes back in the answer.")
    user_id: Identifier = Field(description="The shopper; an unknown one is served.")
    query_id: QueryWords = Field(description="The query's words; an unknown query is served.")
    store_id: Identifier = Field(description="The store whose assortment is searched.")
    as_of_ms: Instant | None = Field(
        default=None,
        description="Unix ms; nothing at or after it is known to the answer. If absent, the "
        "server's clock, unless the server is set to require it (replays).",
    )


class RetrieveRequest(_Request):
    """Asks for candidates out of the store's assortment."""

    count: int = Field(default=100, ge=1, le=MAX_COUNT, strict=True, description="Items wanted.")
    retriever: Identifier = Field(default="onepiece", description="Who chooses the candidates.")


class PreRankRequest(_Request):
    """Asks for an order of given candidates."""

    item_ids: tuple[Identifier, ...] = Field(
        min_length=1,
        max_length=MAX_CANDIDATES,
        description="Candidates in any order; one given twice is scored and answered once.",
    )
    count: int = Field(
        default=MAX_COUNT, ge=1, le=MAX_COUNT, strict=True, description="Items wanted, best first."
    )
    ranker: Identifier = Field(default="onepiece", description="Who orders the candidates.")


class RecommendRequest(_Request):
    """Asks for a page: retrieval and pre-rank in one call, on one encode."""

    count: int = Field(default=20, ge=1, le=MAX_COUNT, strict=True, description="Items wanted.")
    retriever: Identifier = Field(default="onepiece", description="Who chooses the candidates.")
    ranker: Identifier = Field(default="onepiece", description="Who orders the candidates.")


class AnswerItem(BaseModel):
    """One item of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    item_id: Identifier
    score: float = Field(description="Higher is better; comparable only within one answer.")
    click_probability: float | None = Field(default=None, description="In [0, 1], if predicted.")
    cart_probability: float | None = Field(default=None, description="In [0, 1], if predicted.")
    order_probability: float | None = Field(default=None, description="In [0, 1], if predicted.")
    source: str = Field(
        default="", description="Who brought the item in: onepiece, repeat, popular or request."
    )


class Answer(BaseModel):
    """What was answered, best first, and how it came about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: Identifier
    items: tuple[AnswerItem, ...] = Field(description="Best first; empty if the store sells none.")
    as_of_ms: Instant = Field(description="The instant the answer was made for, Unix ms.")
    model_version: str = Field(
        default="", description="Bundle that answered, of two the one that ranked; empty if none."
    )
    context_digest: str = Field(default="", description="Digest of the context that was read.")
    context_parts: dict[str, str] = Field(
        default_factory=dict,
        description="Part of what was read (context/parts.py) -> its digest; empty if no model "
        "answered.",
    )
    retriever: str = Field(default="", description="Who chose; empty for a pre-rank.")
    ranker: str = Field(default="", description="Who ordered; empty for a retrieval.")
    is_known_user: bool = Field(description="False: nothing is known of the user.")
    is_known_query: bool = Field(
        description="False: the query names no category and has no features; the whole store was "
        "searched."
    )
    degraded_by: str = Field(default="", description="Why a fallback answered; empty if none did.")
    num_unknown_items: int = Field(
        default=0, ge=0, description="Candidates that the answering stage does not know."
    )
    num_duplicate_items: int = Field(
        default=0, ge=0, description="Candidates given more than once, each counted once more."
    )

    @model_validator(mode="after")
    def _items_are_unique(self) -> Self:
        if len({item.item_id for item in self.items}) != len(self.items):
            raise ValueError("an item is answered twice")
        return self


AnyRequest = RetrieveRequest | PreRankRequest | RecommendRequest

_RequestT = TypeVar("_RequestT", bound=_Request)


def parse_json(model: type[_RequestT], body: bytes) -> _RequestT:
    """Reads one request from JSON, as REST gives it.

    Raises:
        InvalidRequest: Malformed JSON, an unknown field, or a value out of bounds.
        PayloadTooLarge: More bytes or candidates than allowed.
    """
    _check_size(len(body))
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error


def parse_mapping(
    model: type[_RequestT], fields: Mapping[str, Any], *, num_bytes: int = 0
) -> _RequestT:
    """Reads one request from named values, as gRPC gives it.

    Raises:
        InvalidRequest: An unknown field, or a value out of bounds.
        PayloadTooLarge: More bytes or candidates than allowed.
    """
    _check_size(num_bytes)
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise _refusal(error) from error


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BODY_BYTES:
        raise PayloadTooLarge(
            f"the request is {num_bytes} bytes, at most {MAX_BODY_BYTES} are allowed; "
            "send fewer candidates at a time"
        )


def _refusal(error: ValidationError) -> OnePieceError:
    """Says what is wrong with a request, and whether it is only too long."""
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_long" and detail["loc"] == ("item_ids",):
            given = detail["ctx"]["actual_length"]
            return PayloadTooLarge(
                f"item_ids holds {given} candidates, at most {MAX_CANDIDATES} are allowed in one "
                "request; send the best ones, or split them over several requests"
            )
    return InvalidRequest(f"invalid request: {explain(error, whole='request')}")
