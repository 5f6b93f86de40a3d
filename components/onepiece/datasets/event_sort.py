"""Sorts a stream of events that may be larger than memory, on disk.

Log order is time, then kind (an answer before what follows from it), then event id. Runs of
`RUN_EVENTS` events are sorted in memory and written out; all runs are then merged. One line of a
run is time and kind, event id, JSON, parted by tabs, so that comparing bytes compares in log
order: ids hold no control characters, hence no tab.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from onepiece.events.schema import EVENT_KINDS, Event, dump_event

RUN_EVENTS = 1_000_000
"""Events in memory at once; chosen here: about 400 MB, and 10^8 events make 100 runs, far below
the number of files that a process may open."""

_RANK = {kind: rank for rank, kind in enumerate(EVENT_KINDS)}


def in_log_order(
    events: Iterable[Event], folder: Path, *, counts: Counter[str], run_events: int = RUN_EVENTS
) -> Iterator[bytes]:
    """Yields each event as one line of JSON, in log order, and drops repeated ones.

    Two events of one instant, kind and id are one event told twice; the one kept does not depend
    on the order in which they came, even if they differ in the rest.

    Args:
        events: Events in any order, read once.
        folder: An existing folder for the runs; one file a run, removed by the caller.
        counts: Gets `num_duplicate_events`, the number of events dropped, and
            `num_differing_duplicates`, how many of them differ from the one kept.
        run_events: Events of one run, at least 1.
    """
    paths: list[Path] = []
    lines = (_line_of(event) for event in events)
    while run := sorted(islice(lines, run_events)):
        paths.append(folder / f"run-{len(paths):05}")
        with paths[-1].open("wb") as file:
            file.writelines(run)
    counts.update(num_duplicate_events=0, num_differing_duplicates=0)
    with ExitStack() as stack:
        runs = [stack.enter_context(path.open("rb")) for path in paths]
        before = kept = b""
        for line in heapq.merge(*runs):
            key, _, payload = line.rpartition(b"\t")
            if key == before:
                counts["num_duplicate_events"] += 1
                counts["num_differing_duplicates"] += payload != kept
                continue
            before, kept = key, payload
            yield payload


def _line_of(event: Event) -> bytes:
    key = f"{event.at_ms:013}{_RANK[event.kind]}\t{event.event_id}\t"
    return key.encode() + dump_event(event) + b"\n"
