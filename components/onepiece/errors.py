"""Every error this package raises on purpose, each with the status a caller sees.

OnePieceError                  500 INTERNAL, exit 1
    InvalidInput               400 INVALID_ARGUMENT, exit 2: the caller's fault
        InvalidEvent           an event that breaks the schema
        InvalidRecipe          a recipe with an unknown key or a value out of bounds
        InvalidDataset         files that are not what the adapter reads
        InvalidRequest         a request that breaks the schema of its door
    NotFound                   404 NOT_FOUND, exit 2: a path, bundle or arm that does not exist
    OutputExists               409 ALREADY_EXISTS, exit 2: results are never overwritten
    Conflict                   409 ABORTED: somebody else changed it meanwhile; read again
    PayloadTooLarge            413 RESOURCE_EXHAUSTED: more than one request may hold
    Overloaded                 429 RESOURCE_EXHAUSTED: try again later
    BundleCorrupt              500 DATA_LOSS: a file differs from its recorded hash
    Unavailable                503 UNAVAILABLE: a dependency does not answer
        FeatureStoreUnavailable
        EventLogUnavailable
    DeadlineExceeded           504 DEADLINE_EXCEEDED: an answer came too late
    StorageFull                507 RESOURCE_EXHAUSTED: nothing half-written is left behind
    TrainingDiverged           the loss is no longer a number

A message says what was given, what is allowed, and what to do.
"""


class OnePieceError(Exception):
    """Any error raised on purpose; subclasses say whose fault it is."""

    http_status: int = 500
    """HTTP status code of the answer."""
    grpc_status: str = "INTERNAL"
    """Name of the `grpc.StatusCode` of the answer."""
    exit_code: int = 1
    """Exit code of the command line: 1 failed, 2 misused."""


class InvalidInput(OnePieceError):
    """The caller gave something that is not allowed."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    exit_code = 2


class InvalidEvent(InvalidInput):
    """An event breaks the schema of `events/schema.py`."""


class InvalidRecipe(InvalidInput):
    """A recipe has an unknown key, a value out of bounds, or parts that do not fit."""


class InvalidDataset(InvalidInput):
    """Files are missing or are not in the format that the adapter reads."""


class InvalidRequest(InvalidInput):
    """A request breaks the schema of its door: `serving/schemas.py`, or the collector's."""


class NotFound(OnePieceError):
    """Something named by the caller does not exist."""

    http_status = 404
    grpc_status = "NOT_FOUND"
    exit_code = 2


class OutputExists(OnePieceError):
    """The place to write to is taken; nothing is ever overwritten."""

    http_status = 409
    grpc_status = "ALREADY_EXISTS"
    exit_code = 2


class Conflict(OnePieceError):
    """Somebody else changed it since it was read: nothing was written, read again."""

    http_status = 409
    grpc_status = "ABORTED"


class PayloadTooLarge(OnePieceError):
    """One request holds more than is allowed."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = 2


class Overloaded(OnePieceError):
    """More work is waiting than can be done in time."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class BundleCorrupt(OnePieceError):
    """A file of a bundle is missing or differs from its recorded hash."""

    grpc_status = "DATA_LOSS"


class Unavailable(OnePieceError):
    """A dependency does not answer."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class FeatureStoreUnavailable(Unavailable):
    """The feature store does not answer."""


class EventLogUnavailable(Unavailable):
    """The event log does not answer or did not accept an append."""


class DeadlineExceeded(OnePieceError):
    """An answer came too late to be of use."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class StorageFull(OnePieceError):
    """The disk is full; nothing half-written is left behind."""

    http_status = 507
    grpc_status = "RESOURCE_EXHAUSTED"


class TrainingDiverged(OnePieceError):
    """The loss is no longer a number."""
