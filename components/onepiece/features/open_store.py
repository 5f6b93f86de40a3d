"""Opens the online store that a folder's settings name."""

from pathlib import Path

from onepiece.features.feast_settings import load_settings
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.redis_store import RedisStore
from onepiece.features.store import OnlineStore, SignalKey


def open_online_store(folder: Path, *, redis: RedisSettings | None = None) -> OnlineStore:
    """Opens it, and reads once, so that a store that is away is found at the start.

    On Redis this imports no Feast: that saves the history consumer seconds and half a gigabyte.

    Args:
        folder: The store's.
        redis: Where Redis is for this process, instead of what the folder says; of no effect on a
            store in SQLite.

    Raises:
        NotFound: There is no store in the folder.
        FeatureStoreUnavailable: The online store does not answer.
    """
    settings = load_settings(folder)
    if settings.online == "redis":
        store = RedisStore(redis or settings.redis, project=settings.project)
        store.read([SignalKey("-", "-", "-", 0)])
        return store
    from onepiece.features.feast_store import FeastStore

    return FeastStore.open(folder)
