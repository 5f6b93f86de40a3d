"""Runs a collector behind both doors in one process, and drains it when it is stopped.

One event loop: requests of all connections share one producer, and so its batches. More processes
are more collectors; each has ids of its own to remember.
"""

import asyncio
from collections.abc import Callable

from onepiece.doors.server import Doors, Drain, serve_doors
from onepiece.events.collector import Collector
from onepiece.events.collector_grpc import new_grpc_server
from onepiece.events.collector_http import create_collector_app


async def serve_collector(
    collector: Collector,
    wanted: Doors,
    *,
    stopped: asyncio.Event,
    on_ready: Callable[[Doors], None],
) -> None:
    """Serves until stopped, then finishes what is in flight.

    No new connection is accepted from then on; requests that came are answered, and what they sent
    is waited for, `drain_s` in all.

    Args:
        collector: What answers; closed at the end.
        wanted: Where; port 0 takes a free one.
        stopped: Set when it is no longer wanted.
        on_ready: Called once, with the real ports, when both doors are open.

    Raises:
        InvalidInput: A port is taken, or the host is none of this machine.
    """
    await serve_doors(
        create_collector_app(collector),
        new_grpc_server(collector),
        wanted,
        drain=Drain(longest_s=collector.settings.drain_s),
        stopped=stopped,
        on_ready=on_ready,
        on_drain=lambda: None,
        on_end=collector.close,
    )
