"""How a long-running command hears that it is to stop."""

import signal
import threading


def set_on_signals(stop: threading.Event) -> None:
    """Has SIGTERM and SIGINT set an event; called by the main thread.

    A pause that waits on the event ends at once when a signal comes.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
