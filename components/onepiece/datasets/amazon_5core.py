"""Reads Amazon's 5-core sets in the layout of S3-Rec: Beauty, and alike Sports, Toys, Yelp, LastFM.

Files, in one folder (any of them may be compressed):

- `<Name>.txt`: one user a line, `user item item ...`, oldest first. The order inside a day is
  arbitrary: the reviews have days, not times;
- `<Name>_item2attributes.json`: optional, item -> numbers of its attributes;
- `<Name>.item_tags.tsv`: optional, `item, original id, words of its title` a line.

What the attributes mean was measured on Beauty: an optional brand, then the path of categories
from coarse to fine. A number that only ever comes first is a brand, except where it is all that
an item has. So an item's department is its first category (Beauty has six large ones), its type
the last.

Source: S3-Rec (arXiv:2008.07873), section 4.1.1, for layout and counts.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onepiece.datasets.event_data import EventData, ItemFeatures, Items
from onepiece.datasets.rows import PACKED, find_optional_file, opened, text_lines
from onepiece.datasets.sequences import click_events, read_lines
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import UNKNOWN

PUBLISHED: Mapping[str, Mapping[str, int]] = {
    name: {"num_users": num_users, "num_items": num_items, "num_rows": num_rows}
    for name, num_users, num_items, num_rows in (
        ("Beauty", 22_363, 12_101, 198_502),
        ("Sports_and_Outdoors", 35_598, 18_357, 296_337),
        ("Toys_and_Games", 19_412, 11_924, 167_597),
        ("Yelp", 30_431, 20_033, 316_354),
        ("LastFM", 1_090, 3_646, 52_551),
    )
}
"""Name of a set -> its published counts."""


def read_amazon_5core(source: Path) -> EventData:
    """Reads one set from its folder or its `<Name>.txt`.

    Raises:
        InvalidDataset: No such file, several sets in one folder, or unreadable attributes; later,
            while the events are read, a bad line.
    """
    path = source if source.is_file() else _only_sequences(source)
    name = path.name.split(".")[0]
    items, counts = Items(), Counter[str]()
    attributes = _attributes(find_optional_file(path.parent, [f"{name}_item2attributes.json"]))
    for item_id, features in _features(attributes).items():
        items.add(item_id, features)
    items.titles.update(_titles(find_optional_file(path.parent, [f"{name}.item_tags.tsv"])))
    return EventData(
        events=click_events(read_lines(path), counts),
        items=items,
        counts=counts,
        published=PUBLISHED.get(name, {}),
    )


def _only_sequences(folder: Path) -> Path:
    """Finds the one file of sequences; S3-Rec's `<Name>_sample.txt` holds negatives, not users."""
    names = [f"*.txt{end}" for end in ("", *PACKED)]
    paths = sorted(path for name in names for path in folder.glob(name))
    paths = [path for path in paths if not path.name.split(".")[0].endswith("_sample")]
    if len(paths) != 1:
        found = ", ".join(path.name for path in paths[:10]) or "none"
        raise InvalidDataset(
            f"--source is {folder}; expected one file <Name>.txt in it, found: {found}; give the "
            "folder of one set, or the path of its <Name>.txt"
        )
    return paths[0]


def _attributes(path: Path | None) -> dict[str, list[int]]:
    """Reads the attributes of each item; empty without the file."""
    if path is None:
        return {}
    with opened(path) as text:
        try:
            document: Any = json.load(text)
        except json.JSONDecodeError as error:
            raise InvalidDataset(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(document, dict) or not all(
        isinstance(numbers, list) for numbers in document.values()
    ):
        raise InvalidDataset(f"{path} is not an object of lists; give item -> [attributes]")
    return document


def _features(attributes: Mapping[str, list[int]]) -> dict[str, ItemFeatures]:
    """Tells brands from categories, and gives department, type and brand."""
    ever_later = {number for numbers in attributes.values() for number in numbers[1:]}
    features = {}
    for item_id, numbers in attributes.items():
        has_brand = len(numbers) > 1 and numbers[0] not in ever_later
        path = numbers[1:] if has_brand else numbers
        features[item_id] = ItemFeatures(
            department_id=str(path[0]) if path else UNKNOWN,
            type_id=str(path[-1]) if path else UNKNOWN,
            brand_id=str(numbers[0]) if has_brand else UNKNOWN,
        )
    return features


def _titles(path: Path | None) -> dict[str, str]:
    """Reads the words of each item's title; empty without the file."""
    titles = {}
    for where, line in text_lines(path) if path else ():
        item_id, *others = line.split("\t")
        if len(others) not in (1, 2):
            raise InvalidDataset(
                f"{where} is {line!r:.80}; give the item, its original id and the words, parted "
                "by tabs"
            )
        if others[1:]:  # three titles of Beauty have no word that was kept
            titles[item_id] = others[1]
    return titles
