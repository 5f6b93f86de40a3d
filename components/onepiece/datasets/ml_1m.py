"""Reads MovieLens-1M as SASRec prepared it: users, and the movies they rated in order.

Files, in one folder:

- `ml-1m.txt`, SASRec's own (`user item` a line), or `ml-1m.sequences.txt`
  (`user item item ...` a line): ids are SASRec's, 1, 2, ..., and so are those written;
- `movies.dat` and `users.dat` of MovieLens-1M with `sas_to_original_items.txt` and
  `sas_to_original_users.txt` (`SASRec's id, MovieLens' id` a line): optional, together.

SASRec kept users and movies with five ratings or more, whatever the rating. A movie's first
genre is its type, all of them its department.

Source: SASRec (arXiv:1808.09781), section IV-A; GroupLens, the README of ml-1m.
"""

from collections import Counter
from pathlib import Path

from onepiece.datasets.event_data import EventData, ItemFeatures, Items, label
from onepiece.datasets.receipts import ProfileLabels
from onepiece.datasets.rows import find_file, find_optional_file, text_lines
from onepiece.datasets.sequences import click_events, read_lines, read_pairs
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN

PUBLISHED = {"num_users": 6_040, "num_items": 3_416, "num_rows": 999_611}
"""Counts of SASRec's file; of users and movies they are the paper's."""

_PAIRS, _LINES = "ml-1m.txt", "ml-1m.sequences.txt"
_AGES = {
    "1": "Under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56+",
}
"""Code of `users.dat` -> age group, from MovieLens' README."""


def read_ml_1m(source: Path) -> EventData:
    """Reads MovieLens-1M from its folder, or from the file of sequences alone.

    Raises:
        InvalidDataset: No file of sequences; later, while the events are read, a bad line.
    """
    path = find_file(source, [_PAIRS, _LINES])
    sequences = read_pairs(path) if path.name.startswith(_PAIRS) else read_lines(path)
    items, counts = Items(), Counter[str]()
    profiles: dict[str, ProfileLabels] = {}
    if source.is_dir():
        _add_movies(source, items)
        profiles = _profiles(source)
    return EventData(
        events=click_events(sequences, counts),
        items=items,
        counts=counts,
        profiles=profiles,
        published=PUBLISHED,
    )


def _add_movies(folder: Path, items: Items) -> None:
    for item_id, (title, genres) in _described(folder, "items", "movies.dat", num_fields=2).items():
        items.titles[item_id] = title
        items.add(
            item_id,
            ItemFeatures(type_id=label(genres.split("|")[0]), department_id=label(genres)),
        )


def _profiles(folder: Path) -> dict[str, ProfileLabels]:
    """Gives each user's age group; MovieLens knows neither income nor household."""
    users = _described(folder, "users", "users.dat", num_fields=4)
    return {
        user_id: ProfileLabels(
            age_group=_AGES.get(age, UNKNOWN), income_group=UNKNOWN, household_size=UNKNOWN
        )
        for user_id, (_, age, _, _) in users.items()
    }


def _described(folder: Path, what: str, name: str, *, num_fields: int) -> dict[str, list[str]]:
    """Reads a `.dat` file under SASRec's ids, which another file maps; empty without the two."""
    described = find_optional_file(folder, [name])
    mapped = find_optional_file(folder, [f"sas_to_original_{what}.txt"])
    if described is None or mapped is None:
        return {}
    fields_of = {}
    for where, line in text_lines(described):
        original_id, *fields = line.split("::")
        if len(fields) != num_fields:
            raise InvalidDataset(
                f"{where} is {line!r:.80}; expected {num_fields + 1} fields parted by ::"
            )
        fields_of[original_id] = fields
    pairs = [line.split() for _, line in text_lines(mapped)]
    return {pair[0]: fields_of[pair[-1]] for pair in pairs if pair[-1] in fields_of}
