"""The feature store as its readers and writers see it.

Online there are `RedisStore` (redis_store.py), `FeastStore` on SQLite (feast_store.py) and the
embedded `MemoryStore` (memory_store.py), all behind tests/contract/test_feature_store.py;
offline `FeastStore` and `MemoryStore`. `open_online_store` (open_store.py) picks by settings.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history_replacement import HistoryStore
from onepiece.events.interactions import Interactions

if TYPE_CHECKING:
    from onepiece.features.view_rows import ViewRow

EMPTY = Interactions()
NO_ANCHORS = Anchors()


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What the shop knows of a user besides events; values are category labels."""

    age_group: str = "unknown"
    income_group: str = "unknown"
    household_size: str = "unknown"


UNKNOWN_PROFILE = UserProfile()


@dataclass(frozen=True, slots=True)
class SignalKey:
    """Whose features, and as of when."""

    user_id: str
    query_id: str
    category_id: str
    """Category that the query names; selects the long memory."""
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Signals:
    """All that the store knows for one request; a missing part is its empty value."""

    recent: Interactions = EMPTY
    memory: Interactions = EMPTY
    anchors: Anchors = NO_ANCHORS
    num_query_requests: int = 0
    profile: UserProfile = UNKNOWN_PROFILE
    is_known_user: bool = False
    """Whether any feature of the user was found."""
    is_known_query: bool = False
    """Whether any feature of the query was found."""


class OnlineStore(HistoryStore, Protocol):
    """Reads and writes the latest value of each feature; the serving side.

    Rows are ordered by `schema.version_at`, whoever writes them: a row that is not newer than the
    stored one (`schema.is_newer`) changes nothing and is counted. So several writers of one key
    end with the newest state, a consumer that does not know yet that it lost a partition included.
    All calls but those of `MemoryStore` raise `FeatureStoreUnavailable` if the store is away.
    """

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch; an older `available_at_ms` never wins."""
        ...

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch; an older `available_at_ms` never wins."""
        ...

    def write_rows(self, rows_by_view: "Mapping[str, Sequence[ViewRow]]") -> None:
        """Writes rows of views of `SERVICE_VIEWS`, such as those of an offline file."""
        ...

    def delete_user(self, user_id: str, category_ids: Collection[str]) -> None:
        """Deletes a user's history, profile and memories; there may be none.

        Stop what writes the user first: a later update writes her anew. The event log and the
        offline files are not this store's.

        Args:
            user_id: Whose rows.
            category_ids: Every category in which the user may have a memory, such as all of the
                catalogues so far. No store looks for them: that would read every key there is.
        """
        ...

    def server_id(self) -> str:
        """Names the run of whatever holds the rows: where it changed, rows may have been lost."""
        ...

    def close(self) -> None:
        """Releases connections."""
        ...

    def read(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Reads the latest signals of each key, in order; `as_of_ms` is not used to select.

        Raises:
            FeatureStoreUnavailable: The store does not answer.
        """
        ...


class OfflineStore(Protocol):
    """Reads features as they were at each key's `as_of_ms`; the training side."""

    def read_as_of(self, keys: Sequence[SignalKey]) -> list[Signals]:
        """Joins each key with the newest values available strictly before its `as_of_ms`."""
        ...

    def iter_as_of(self, keys: Sequence[SignalKey]) -> Iterator[Signals]:
        """Answers as `read_as_of`, one by one: for more keys than answers fit in memory."""
        ...
