"""A tiny shop in the format of Complete Journey, and the small data sets of `fixtures`."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onepiece.datasets.adapters import ADAPTERS
from onepiece.datasets.catalogue_file import read_catalogue
from onepiece.datasets.event_files import read_imported_events, write_event_data
from onepiece.events.catalogue import Catalogue
from onepiece.events.schema import Event

Rows = list[dict[str, Any]]


def line(basket_id: int, product_id: int, **changes: Any) -> dict[str, Any]:
    """One order line; household and time follow from the basket."""
    return {
        "household_id": basket_id // 10,
        "store_id": 300,
        "basket_id": basket_id,
        "product_id": product_id,
        "quantity": 1,
        "sales_value": 2.0,
        "retail_disc": 0.0,
        "coupon_disc": 0.0,
        "coupon_match_disc": 0.0,
        "week": 1,
        "transaction_timestamp": datetime(2017, 1, 1, 12, basket_id % 10),
        **changes,
    }


def product(product_id: int, **changes: Any) -> dict[str, Any]:
    """One product."""
    return {
        "product_id": product_id,
        "manufacturer_id": 7,
        "department": "GROCERY",
        "brand": "National",
        "product_category": "BAKED  BREAD",
        "product_type": "WHITE BREAD",
        "package_size": "20 OZ",
        **changes,
    }


def promotion(product_id: int, **changes: Any) -> dict[str, Any]:
    """One row of the promotions file."""
    return {
        "product_id": product_id,
        "store_id": 300,
        "display_location": "0",
        "mailer_location": "0",
        "week": 1,
        **changes,
    }


def default_shop() -> dict[str, Rows]:
    """Two baskets, three products, one profile, two promotions."""
    return {
        "transactions": [line(11, 3), line(11, 20, quantity=2), line(12, 3)],
        "products": [product(3), product(20), product(100, package_size=None)],
        "demographics": [
            {"household_id": 1, "age": "35-44", "income": "50-74K", "household_size": "2"}
        ],
        "promotions": [promotion(3, display_location="5"), promotion(20, mailer_location="A")],
    }


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makes rows of the files: `line`, `product`, `promotion`."""
    return SimpleNamespace(line=line, product=product, promotion=promotion)


@pytest.fixture
def write_shop_files(tmp_path: Path) -> Callable[..., Path]:
    """Writes a shop's files, with some of them replaced, and returns their folder."""

    def write(**files: Rows) -> Path:
        for name, rows in {**default_shop(), **files}.items():
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        return tmp_path

    return write


@dataclass(frozen=True)
class Imported:
    """What an import wrote, read back when it is asked for."""

    out: Path
    counts: Counter[str]

    @cached_property
    def events(self) -> list[Event]:
        """All events, in the order of the files."""
        return list(read_imported_events(self.out))

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue."""
        return read_catalogue(self.out / "catalogue.parquet")


FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def source_of(tmp_path: Path) -> Callable[[str], Path]:
    """Copies the small data set of one name, so that a test can change its files."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(FIXTURES / name, tmp_path / "source" / name))

    return copy


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Imported]:
    """Imports a folder with the adapter of one name, and reads back what was written."""

    def run(name: str, source: Path) -> Imported:
        out = tmp_path / "out" / str(len(list(tmp_path.glob("out/*"))))
        return Imported(out=out, counts=write_event_data(ADAPTERS[name](source), out))

    return run


@pytest.fixture
def edit() -> Callable[..., None]:
    """Replaces a part of a text file that is there exactly once."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        path.write_text(text.replace(old, new))

    return replace


@pytest.fixture
def shared_dataset(repository: Path) -> Callable[[str], Path]:
    """Gives the folder of a real data set; without it the test is skipped aloud."""

    def find(name: str) -> Path:
        roots = [repository / "datasets", *(p / "shared" / "datasets" for p in repository.parents)]
        for root in [Path(os.environ.get("ONEPIECE_DATASETS", roots[0])), *roots]:
            if (root / name).is_dir():
                return root / name
        pytest.skip(f"the data set {name} is not here; name its parent folder ONEPIECE_DATASETS")

    return find
