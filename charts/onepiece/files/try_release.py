"""What `helm test` runs in the cluster: real requests over REST and gRPC, and a real event.

Arguments: --http URL --grpc HOST:PORT of servers, any number of times; --collector URL. Exits 1 at
the first answer that is not one.
"""

import argparse
import json
import random
import sys
import time
import uuid

from onepiece.events.collector_client import CollectorClient
from onepiece.serving.client import GrpcClient, HttpClient, ServingClient
from onepiece.serving.schemas import PreRankRequest, RecommendRequest, RetrieveRequest

WHO = {"user_id": "helm-test", "query_id": "helm test", "store_id": "helm-test"}
"""Nobody, in no store: the answer is empty, but it is one."""


def ask(client: ServingClient, name: str) -> dict[str, object]:
    """Asks all three methods, and checks that each answered its own request."""
    ids = [f"helm-test-{uuid.uuid4()}" for _ in range(3)]
    answers = [
        client.retrieve(RetrieveRequest(request_id=ids[0], **WHO)),
        client.pre_rank(PreRankRequest(request_id=ids[1], item_ids=("helm-test-item",), **WHO)),
        client.recommend(RecommendRequest(request_id=ids[2], **WHO)),
    ]
    if [answer.request_id for answer in answers] != ids:
        sys.exit(f"{name} answered other requests than it was asked")
    client.close()
    return {"server": name, "answers": len(answers), "model": answers[2].model_version}


def send(url: str) -> dict[str, object]:
    """Sends one event twice: it must be accepted, and then be known."""
    event = {
        "kind": "click",
        "event_id": f"helm-test-{uuid.uuid4()}",
        "user_id": WHO["user_id"],
        "item_id": "helm-test-item",
        "at_ms": time.time_ns() // 1_000_000,
    }
    with CollectorClient(
        url,
        sleep=time.sleep,
        random=random.random,
        monotonic_s=time.monotonic,
        patience_s=60.0,
    ) as client:
        told = [result.status for _ in range(2) for result in client.append([event])]
    if told[1] != "duplicate":
        sys.exit(f"{url} said {told} of one event sent twice; accepted and duplicate are right")
    return {"collector": url, "told": [str(status) for status in told]}


def main() -> None:
    """Asks and sends as the arguments say, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", action="append", default=[])
    parser.add_argument("--grpc", action="append", default=[])
    parser.add_argument("--collector", action="append", default=[])
    args = parser.parse_args()
    done = [ask(HttpClient(url), url) for url in args.http]
    done += [ask(GrpcClient(target), target) for target in args.grpc]
    done += [send(url) for url in args.collector]
    for line in done:
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
