"""User histories, folded from the log: what one user's past looks like to the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onepiece.events.interactions import Interactions


@dataclass(frozen=True, slots=True)
class HistoryUpdate:
    """A user's state after some events: what the history consumer writes."""

    user_id: str
    available_at_ms: int
    """Greatest `received_at_ms` of the user's events so far: readable from then on."""
    recent: Interactions
    """The newest events of any category."""
    memories: Mapping[str, Interactions] = field(default_factory=dict)
    """Category id -> the newest events in it, only for categories that changed."""


class HistoryWriter(Protocol):
    """Where histories go; the online feature store is one."""

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older `available_at_ms` never wins."""
        ...
