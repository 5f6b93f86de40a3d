"""What was known before each list was shown: the log folded up to then, and no further."""

from collections.abc import Mapping

from onepiece.events.anchors import AnchorLedger, AnchorRecipe, QueryUpdate
from onepiece.events.history_fold import HistoryRecipe, UserHistory, entries_of, fold
from onepiece.events.schema import DAY_MS, Event
from onepiece.features.store import NO_ANCHORS, UNKNOWN_PROFILE, Signals, UserProfile

_NOBODY = UserHistory()
_NO_USERS: frozenset[int] = frozenset()


class Past:
    """Histories by the stream's own fold, anchors by the daily batch, and who took each item.

    It holds one state a user, not one an event, so a log of any length can be folded. Give it
    the events in log order, and ask for a list before the first event that was received at or
    after it: what comes out is what a store's point-in-time join gives.
    """

    def __init__(self, category_of: Mapping[str, str], profiles: Mapping[str, UserProfile]) -> None:
        """Knows nothing yet.

        Args:
            category_of: Item id -> category id.
            profiles: User id -> profile, known at any instant.
        """
        self._category_of = category_of
        self._profiles = profiles
        self._recipe = HistoryRecipe()
        self._histories: dict[str, UserHistory] = {}
        self._ledger = AnchorLedger(AnchorRecipe())
        self._queries: dict[str, QueryUpdate] = {}
        self._day_ms = 0
        self._user_codes: dict[str, int] = {}
        self._takers: dict[str, set[int]] = {}

    def append(self, event: Event) -> None:
        """Takes in the next event of the log."""
        history = self._histories.setdefault(event.user_id, UserHistory())
        fold(history, event, category_of=self._category_of, recipe=self._recipe)
        # Nobody reads it here, and it would grow with every category of every user.
        history.changed_categories.clear()
        self._ledger.append((event,))
        code = self._user_codes.setdefault(event.user_id, len(self._user_codes))
        for _, _, item_id in entries_of(event):
            self._takers.setdefault(item_id, set()).add(code)

    def signals(self, *, user_id: str, query_id: str, category_id: str, as_of_ms: int) -> Signals:
        """Gives what the stores would: the user's history, and the query's anchors of the day."""
        history = self._histories.get(user_id, _NOBODY)
        query = self._queries_at(as_of_ms).get(query_id)
        profile = self._profiles.get(user_id)
        return Signals(
            recent=history.interactions(history.recent),
            memory=history.interactions(history.memory_of(category_id)),
            anchors=NO_ANCHORS if query is None else query.anchors,
            num_query_requests=0 if query is None else query.num_requests,
            profile=UNKNOWN_PROFILE if profile is None else profile,
            is_known_user=bool(history.recent) or profile is not None,
            is_known_query=query is not None,
        )

    def num_other_users(self, item_id: str, *, user_id: str) -> int:
        """Counts the other users who clicked, carted or ordered an item."""
        takers = self._takers.get(item_id, _NO_USERS)
        return len(takers) - (self._user_codes.get(user_id, -1) in takers)

    def _queries_at(self, as_of_ms: int) -> Mapping[str, QueryUpdate]:
        """Runs the daily batch if a day began since the last list."""
        day_ms = as_of_ms // DAY_MS * DAY_MS
        if day_ms > self._day_ms:
            self._day_ms = day_ms
            self._queries = {u.query_id: u for u in self._ledger.compute(day_ms)}
        return self._queries
