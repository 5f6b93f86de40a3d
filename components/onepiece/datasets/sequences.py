"""Sequences: data sets that keep only the order in which users met items.

Such a data set has no times. Each user's last interaction gets `VIRTUAL_END_MS` and each one
before it an instant one day earlier, so that a cut in time is the leave-one-out split in which
these data sets are judged: from `VIRTUAL_END_MS` on is every user's test item, the day before it
the validation item, everything earlier is for training.

An interaction (a review, a rating, a listen) is a `Click`: nothing says that it was bought, or
at which price. Its query is `ALL_ITEMS`, the category of every item, so that a query ranks them
all.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from onepiece.datasets.event_data import ALL_ITEMS, checked
from onepiece.datasets.rows import text_lines
from onepiece.errors import InvalidDataset
from onepiece.events.schema import DAY_MS, MIN_AT_MS, Click

VIRTUAL_END_MS = 1_577_836_800_000
"""2020-01-01 00:00 UTC; chosen here: 17,104 days above the earliest instant that is allowed."""
MAX_LENGTH = (VIRTUAL_END_MS - MIN_AT_MS) // DAY_MS + 1
"""Interactions of one user for which there are days; the longest of ML-1M has 2,277."""

UserItems = tuple[str, str, list[str]]
"""Where it was read, the user, and the items, oldest first."""


def read_lines(path: Path) -> Iterator[UserItems]:
    """Reads one user a line: `user item item ...`, oldest first.

    Raises:
        InvalidDataset: A line without an item, or a user with two lines.
    """
    users = set()
    for where, line in text_lines(path):
        user_id, *item_ids = line.split()
        if not item_ids:
            raise InvalidDataset(
                f"{where} is {line!r:.80}, a user without items; give `user item item ...`, "
                "oldest first, or leave the line out"
            )
        if user_id in users:
            raise InvalidDataset(
                f"{where}: user {user_id!r:.80} has a line already; join the lines, oldest first"
            )
        users.add(user_id)
        yield where, user_id, item_ids


def read_pairs(path: Path) -> Iterator[UserItems]:
    """Reads one interaction a line: `user item`, each user's oldest first.

    Raises:
        InvalidDataset: A line that is not two words.
    """
    items_of: dict[str, list[str]] = {}
    for where, line in text_lines(path):
        words = line.split()
        if len(words) != 2:
            raise InvalidDataset(
                f"{where} is {line!r:.80}; give `user item`, one interaction a line"
            )
        items_of.setdefault(words[0], []).append(words[1])
    for user_id, item_ids in items_of.items():
        yield f"{path.name}, user {user_id}", user_id, item_ids


def click_events(sequences: Iterable[UserItems], counts: Counter[str]) -> Iterator[Click]:
    """Yields each interaction as a click at its virtual instant.

    Args:
        sequences: Users and their items.
        counts: Gets `num_rows`, the number of interactions, and `num_repeated_items`, how many of
            them are of an item that the user met before; they are kept.

    Raises:
        InvalidDataset: A user with more than `MAX_LENGTH` interactions, or a bad id.
    """
    for where, user_id, item_ids in sequences:
        if len(item_ids) > MAX_LENGTH:
            raise InvalidDataset(
                f"{where}: user {user_id!r:.80} has {len(item_ids)} interactions; at most "
                f"{MAX_LENGTH} have a virtual day: keep the latest"
            )
        counts["num_rows"] += len(item_ids)
        counts["num_repeated_items"] += len(item_ids) - len(set(item_ids))
        for place, item_id in enumerate(item_ids):
            yield checked(
                Click,
                where,
                event_id=f"click-{user_id}-{place}",
                user_id=user_id,
                at_ms=VIRTUAL_END_MS - (len(item_ids) - 1 - place) * DAY_MS,
                query_id=ALL_ITEMS,
                item_id=item_id,
            )
