"""How an error is told to a caller, and made an error again by a client of ours."""

from pydantic import BaseModel, ConfigDict

from onepiece import errors
from onepiece.errors import OnePieceError, Overloaded, Unavailable

INTERNAL = "the server failed; its log says why"
"""All that a caller is told of a fault of ours."""
RETRY_AFTER_S = 1
"""When to try again what was refused for now, in seconds; chosen here: long enough for a queue to
empty, short against any timeout."""


class Problem(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """Name of the error, as in `errors.py`."""
    message: str
    """What was given, what is allowed, and what to do."""


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: Problem


def is_passing(error: type[OnePieceError]) -> bool:
    """Says whether the same request may succeed a little later."""
    return issubclass(error, Overloaded | Unavailable)


def error_named(name: str, message: str) -> OnePieceError:
    """Makes the error that a server named; a name that we do not know is the general error."""
    error_class = getattr(errors, name, None)
    if isinstance(error_class, type) and issubclass(error_class, OnePieceError):
        return error_class(message)
    return OnePieceError(message)
