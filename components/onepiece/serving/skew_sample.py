"""Which exposures the skew watch looks at: a seeded sample of one bundle's."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onepiece.events.schema import Event, Exposure

LEFT_OUT: tuple[str, ...] = ("degraded", "no_model", "other_model", "no_digest", "not_drawn")
"""Why an exposure is not checked. degraded: a fallback answered, without features; no_model: no
model was asked; other_model: another bundle answered; no_digest: it was logged before contexts
had digests; not_drawn: the sample was full."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Exposures to check, ascending in time, and how many were not taken."""

    exposures: tuple[Exposure, ...]
    num_left_out: Mapping[str, int]
    """One of `LEFT_OUT` -> exposures of the same time."""


def draw_sample(
    events: Iterable[Event],
    *,
    model_version: str,
    num_wanted: int,
    seed: int,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> Sample:
    """Draws exposures whose context can be rebuilt with one bundle.

    Who is drawn depends on the seed and the exposure alone, so a longer log changes only who falls
    out. At most `num_wanted` exposures are in memory.

    Args:
        events: The log's, in any order; an event id counts once.
        model_version: The bundle's.
        num_wanted: Most exposures.
        seed: Of the draw.
        from_ms: First instant of an exposure; None for the log's first.
        to_ms: First instant after it; None for none.
    """
    num_left_out: Counter[str] = Counter(dict.fromkeys(LEFT_OUT, 0))
    drawn: list[tuple[int, str]] = []
    kept: dict[str, Exposure] = {}
    for event in events:
        if not isinstance(event, Exposure) or not _is_within(event, from_ms, to_ms):
            continue
        reason = _why_not(event, model_version)
        if reason:
            num_left_out[reason] += 1
        elif event.event_id not in kept:
            kept[event.event_id] = event
            heapq.heappush(drawn, (-_rank(seed, event.event_id), event.event_id))
            if len(drawn) > num_wanted:
                del kept[heapq.heappop(drawn)[1]]
                num_left_out["not_drawn"] += 1
    exposures = sorted(kept.values(), key=lambda one: (one.at_ms, one.event_id))
    return Sample(tuple(exposures), dict(num_left_out))


def _is_within(exposure: Exposure, from_ms: int | None, to_ms: int | None) -> bool:
    return (from_ms is None or exposure.at_ms >= from_ms) and (
        to_ms is None or exposure.at_ms < to_ms
    )


def _why_not(exposure: Exposure, model_version: str) -> str:
    if exposure.degraded_by:
        return "degraded"
    if not exposure.model_version:
        return "no_model"
    if exposure.model_version != model_version:
        return "other_model"
    return "" if exposure.context_digest else "no_digest"


def _rank(seed: int, event_id: str) -> int:
    digest = hashlib.blake2b(f"{seed}\x00{event_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
