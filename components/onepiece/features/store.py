"""The feature store as its readers and writers see it.

Two implementations: `FeastStore` (feast_store.py) and the embedded `MemoryStore`
(memory_store.py), both behind tests/contract/test_feature_store.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions

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


class OnlineStore(Protocol):
    """Reads and writes the latest value of each feature; the serving side."""

    def write_histories(self, updates: Sequence[HistoryUpdate]) -> None:
        """Writes users' histories in one batch; an older `available_at_ms` never wins."""
        ...

    def write_queries(self, updates: Sequence[QueryUpdate]) -> None:
        """Writes queries' anchors in one batch."""
        ...

    def write_profiles(self, profiles: Mapping[str, UserProfile], *, available_at_ms: int) -> None:
        """Writes user profiles in one batch."""
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
