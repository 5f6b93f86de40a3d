"""gRPC: the one place where errors become statuses."""

from collections.abc import Mapping
from typing import Any

import grpc

from onepiece.doors.messages import ERROR_CODE
from onepiece.doors.problems import RETRY_AFTER_S, is_passing
from onepiece.errors import OnePieceError

_MAX_DETAILS = 4_000
"""Details travel as a trailer, which gRPC limits to 8 KiB by default."""
_PUSHBACK = "grpc-retry-pushback-ms"
"""Trailer by which gRPC's own retry policy learns when to try again."""


def set_status(
    context: Any,
    error: type[OnePieceError],
    details: str,
    *,
    trailers: Mapping[str, str] | None = None,
) -> None:
    """Sets an error's status on a call: raising would log the caller's faults.

    Args:
        context: Of the call.
        error: Class of the error.
        details: Its message.
        trailers: What else to tell, name -> value.
    """
    context.set_code(grpc.StatusCode[error.grpc_status])
    context.set_details(details[:_MAX_DETAILS])
    told = {ERROR_CODE: error.__name__, **(trailers or {})}
    if is_passing(error):
        told[_PUSHBACK] = str(RETRY_AFTER_S * 1_000)
    context.set_trailing_metadata(list(told.items()))
