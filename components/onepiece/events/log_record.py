"""Where an event lies in a log."""

from dataclasses import dataclass

from onepiece.events.schema import Event


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log: the record at `offset` of `partition`."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """One event and where it lies."""

    position: Position
    event: Event
