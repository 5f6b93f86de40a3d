"""Prints what Redis knows of a user: the items of her recent history, newest last, as JSON.

Arguments: host:port of Redis, the user.
"""

import json
import sys

from onepiece.features.redis_settings import RedisSettings
from onepiece.features.redis_store import RedisStore
from onepiece.features.store import SignalKey


def main() -> None:
    address, user_id = sys.argv[1:]
    store = RedisStore(RedisSettings(address=address), project="onepiece")
    key = SignalKey(user_id=user_id, query_id="", category_id="", as_of_ms=0)
    [signals] = store.read([key])
    sys.stdout.write(json.dumps([str(item) for item in signals.recent.item_ids]))


if __name__ == "__main__":
    main()
