"""Opens the online store that a folder's settings name."""

from pathlib import Path

from onepiece.features.feast_settings import load_settings
from onepiece.features.redis_store import RedisStore
from onepiece.features.store import OnlineStore, SignalKey


def open_online_store(folder: Path) -> OnlineStore:
    """Opens it, and reads once, so that a store that is away is found at the start.

    On Redis this imports no Feast: that saves the history consumer seconds and half a gigabyte.

    Raises:
        NotFound: There is no store in the folder.
        FeatureStoreUnavailable: The online store does not answer.
    """
    settings = load_settings(folder)
    if settings.online == "redis":
        store = RedisStore(settings.redis, project=settings.project)
        store.read([SignalKey("-", "-", "-", 0)])
        return store
    from onepiece.features.feast_store import FeastStore

    return FeastStore.open(folder)
