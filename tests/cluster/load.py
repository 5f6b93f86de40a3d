"""Asks servers over REST and gRPC, without a pause, until a file appears; counts what came back.

Arguments: URL of REST, host:port of gRPC, the file to wait for, the fewest requests of each.
Prints JSON: of each door the number asked, the answers by model version,
those of a fallback by its reason, and what failed, after the second of its failure.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from onepiece.errors import OnePieceError
from onepiece.serving.client import GrpcClient, HttpClient, ServingClient
from onepiece.serving.schemas import RecommendRequest

NUM_THREADS = 2
"""Of each door."""
TIMEOUT_S = 30.0
"""Long, since a machine that builds and serves at once is slow; an answer that is late is one."""
LONGEST_S = 1200.0


class Asker:
    """Asks one door from several threads."""

    def __init__(self, client: ServingClient, stop: Path, fewest: int) -> None:
        self._client, self._stop, self._fewest = client, stop, fewest
        self._deadline_s = time.monotonic() + LONGEST_S
        self._lock = threading.Lock()
        self.asked = 0
        self.models: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        while not (self._stop.exists() and self.asked >= self._fewest):
            if time.monotonic() > self._deadline_s:
                return
            with self._lock:
                self.asked += 1
                number = self.asked
            request = RecommendRequest(
                request_id=f"r{number}", user_id=f"u{number}", query_id="milk", store_id="s1"
            )
            try:
                answer = self._client.recommend(request)
                told = answer.model_version if answer.request_id == f"r{number}" else "not its own"
                failure = None
            except OnePieceError as error:
                failure = f"{time.time():.3f} {type(error).__name__}: {error}"
            with self._lock:
                if failure is None:
                    self.models[told] += 1
                    if answer.degraded_by:
                        self.degraded[answer.degraded_by] += 1
                else:
                    self.failures.append(failure)


def main() -> None:
    http_url, grpc_target, stop, fewest = sys.argv[1:]
    clients = {
        "rest": HttpClient(http_url, timeout_s=TIMEOUT_S),
        "grpc": GrpcClient(grpc_target, timeout_s=TIMEOUT_S),
    }
    askers = {name: Asker(each, Path(stop), int(fewest)) for name, each in clients.items()}
    threads = [
        threading.Thread(target=asker.run) for asker in askers.values() for _ in range(NUM_THREADS)
    ]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {
        name: {
            "asked": asker.asked,
            "models": asker.models,
            "degraded": asker.degraded,
            "failures": asker.failures,
        }
        for name, asker in askers.items()
    }
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - began_s, **counts}))


if __name__ == "__main__":
    main()
