"""A tiny shop in the format of Complete Journey, written as its parquet files."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
