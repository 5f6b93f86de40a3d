"""The skew watch: did the server read what training would read? Differences, by part and cause.

The context of each exposure is rebuilt from the offline store, as of its instant, by the code that
serving and training share, and its digests are compared with those that were logged.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from onepiece.context.parts import OTHER
from onepiece.events.schema import Event, Exposure, Impression
from onepiece.serving.skew_rebuild import Rebuilder, Rebuilt, differing_parts

Cause = Literal["lag", "late_event", "unexplained"]
"""Why a context differs. lag: the server knew less, it equals once the newest of what was received
shortly before is left out. late_event: it knew more, it equals once what was received shortly after
(and had happened before) is added. unexplained: neither; a defect."""
CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An exposure whose context was rebuilt otherwise than it was logged."""

    exposure: Exposure
    parts: tuple[str, ...]
    """Where it differs: of `PARTS`, or `OTHER`."""
    cause: Cause


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found."""

    rebuilt: tuple[Rebuilt, ...]
    """One an exposure, in order."""
    mismatches: tuple[Mismatch, ...]
    """In the exposures' order."""

    def num_by_part(self) -> dict[str, dict[Cause, int]]:
        """Counts mismatches: part -> cause -> exposures. One that differs in two counts in both."""
        counts = Counter((part, one.cause) for one in self.mismatches for part in one.parts)
        parts = sorted({part for part, _ in counts})
        return {part: {cause: counts[part, cause] for cause in CAUSES} for part in parts}

    def num_by_result(self) -> dict[str, int]:
        """Counts exposures: "equal" or a cause -> how many."""
        counts = Counter[str](one.cause for one in self.mismatches)
        num_equal = len(self.rebuilt) - len(self.mismatches)
        return {"equal": num_equal, **{cause: counts[cause] for cause in CAUSES}}


def check(
    exposures: Sequence[Exposure],
    rebuilder: Rebuilder,
    events: Iterable[Event],
    *,
    lag_ms: int,
) -> Checked:
    """Rebuilds and compares each exposure's context, and finds the cause of each difference.

    Args:
        exposures: Of the rebuilder's bundle, each at or after its first item table.
        rebuilder: Knows the offline store.
        events: The log's; read only if something differs.
        lag_ms: How long before or after an exposure something may have been received, and still
            explain a difference.
    """
    rebuilt = rebuilder.rebuild(exposures, [one.at_ms for one in exposures])
    parts = [differing_parts(*pair) for pair in zip(exposures, rebuilt, strict=True)]
    differing = [place for place, named in enumerate(parts) if named]
    others = [exposures[place] for place in differing]
    causes = _causes(others, [parts[place] for place in differing], rebuilder, events, lag_ms)
    mismatches = [
        Mismatch(exposures[place], parts[place], cause)
        for place, cause in zip(differing, causes, strict=True)
    ]
    return Checked(tuple(rebuilt), tuple(mismatches))


def _causes(
    exposures: Sequence[Exposure],
    parts: Sequence[tuple[str, ...]],
    rebuilder: Rebuilder,
    events: Iterable[Event],
    lag_ms: int,
) -> list[Cause]:
    """Rebuilds each exposure as of every instant at which the server may have stood instead."""
    if not exposures:
        return []
    received = _received_near(exposures, events, lag_ms)
    asked = [
        (place, known_ms)
        for place, one in enumerate(exposures)
        for known_ms in _instants(one, received[one.user_id], lag_ms)
    ]
    at_instants = rebuilder.rebuild(
        [exposures[place] for place, _ in asked], [known_ms for _, known_ms in asked]
    )
    known_less: list[list[Rebuilt]] = [[] for _ in exposures]
    known_more: list[list[Rebuilt]] = [[] for _ in exposures]
    for (place, known_ms), one in zip(asked, at_instants, strict=True):
        side = known_less if known_ms < exposures[place].at_ms else known_more
        side[place].append(one)
    return [
        "lag"
        if _explains(exposure, named, less)
        else "late_event"
        if _explains(exposure, named, more)
        else "unexplained"
        for exposure, named, less, more in zip(
            exposures, parts, known_less, known_more, strict=True
        )
    ]


def _explains(exposure: Exposure, parts: Sequence[str], others: Sequence[Rebuilt]) -> bool:
    """Says whether each part equals at some instant.

    Not all at one: histories, anchors and item tables come by ways of their own, each with its lag.
    """
    return all(
        any(
            not differing_parts(exposure, one)
            if part == OTHER
            else exposure.context_parts[part] == one.parts[part]
            for one in others
        )
        for part in parts
    )


def _received_near(
    exposures: Sequence[Exposure], events: Iterable[Event], lag_ms: int
) -> Mapping[str, list[int]]:
    """Finds when events of the exposures' users were received, near any of their exposures."""
    asked_at: dict[str, list[int]] = {}
    for one in exposures:
        asked_at.setdefault(one.user_id, []).append(one.at_ms)
    received: dict[str, list[int]] = {user_id: [] for user_id in asked_at}
    for event in events:
        at_ms = event.received_at_ms
        if isinstance(event, Exposure | Impression) or event.user_id not in asked_at:
            continue
        if any(abs(at_ms - asked_ms) <= lag_ms for asked_ms in asked_at[event.user_id]):
            received[event.user_id].append(at_ms)
    return received


def _instants(exposure: Exposure, received: Sequence[int], lag_ms: int) -> list[int]:
    """Lists the instants before which the server may have known all, and nothing later.

    The first of all leaves out whatever came within the lag, the daily batch's rows too.
    """
    at_ms = exposure.at_ms
    first_ms = at_ms - lag_ms
    less = {first_ms, *(one for one in received if first_ms <= one < at_ms)}
    more = {one + 1 for one in received if at_ms <= one <= at_ms + lag_ms}
    return sorted(less | more)
