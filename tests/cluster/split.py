"""Asks a gateway over REST and gRPC, and counts which model answered.

Arguments: host:port of the gateway, requests of each door, and the arm to ask for, if any.
Prints JSON: of each door the answers by model version, and what failed.
"""

import json
import sys
from collections import Counter

from onepiece.errors import OnePieceError
from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.schemas import RecommendRequest

TIMEOUT_S = 30.0


def main() -> None:
    target, number, *arm = sys.argv[1:]
    named = {"x-onepiece-arm": arm[0]} if arm else {}
    clients = {
        "rest": HttpClient(f"http://{target}", timeout_s=TIMEOUT_S, headers=named),
        "grpc": GrpcClient(target, timeout_s=TIMEOUT_S, metadata=named),
    }
    counts = {}
    for door, client in clients.items():
        models: Counter[str] = Counter()
        failures = []
        for each in range(int(number)):
            request = RecommendRequest(
                request_id=f"r{each}", user_id=f"u{each}", query_id="milk", store_id="s1"
            )
            try:
                models[client.recommend(request).model_version] += 1
            except OnePieceError as error:
                failures.append(f"{type(error).__name__}: {error}")
        counts[door] = {"models": models, "failures": failures}
        client.close()
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main()
