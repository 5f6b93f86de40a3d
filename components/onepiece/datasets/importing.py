"""Writes a shop's data as parquet files in a new folder: whole, or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.datasets.receipts import CURRENCY, ProfileLabels, ShopData, receipt_event_id
from onepiece.output import new_folder


def write_shop(shop: ShopData, out: Path) -> None:
    """Writes orders.parquet, catalogue.parquet, profiles.parquet and counts.json.

    One row of orders.parquet is one order line under the field names of `events/schema.py`. The
    files are written next to `out` and get their place by one rename.

    Raises:
        OutputExists: `out` is there already.
        InvalidInput: The folder that `out` should be made in cannot be written to.
        StorageFull: No room; nothing is left behind.
    """
    with new_folder(out) as partial:
        pq.write_table(_orders(shop), partial / "orders.parquet")
        write_catalogue(shop.catalogue, partial / "catalogue.parquet")
        pq.write_table(profiles_table(shop.profiles), partial / "profiles.parquet")
        (partial / "counts.json").write_text(json.dumps(asdict(shop.counts), indent=2) + "\n")


def compare_counts(counts: Mapping[str, object], published: Mapping[str, int]) -> dict[str, bool]:
    """Says of each published count whether the files that were read have just as many."""
    return {name: counts.get(name) == expected for name, expected in published.items()}


def profiles_table(profiles: Mapping[str, ProfileLabels]) -> pa.Table:
    """Gives what is known of users as a table, one row a user, in the order given."""
    rows = [{"user_id": user, **asdict(labels)} for user, labels in profiles.items()]
    names = ("user_id", "age_group", "income_group", "household_size")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))


def _orders(shop: ShopData) -> pa.Table:
    receipts = shop.receipts
    event_ids = [receipt_event_id(basket_id) for basket_id in receipts.basket_ids.tolist()]
    instants = pa.array(receipts.at_ms, pa.int64())
    return pa.table(
        {
            "event_id": pa.array(event_ids).dictionary_encode(),
            "user_id": pa.array(receipts.household_ids, pa.string()).dictionary_encode(),
            "at_ms": instants,
            "received_at_ms": instants,
            "order_id": pa.array(receipts.basket_ids, pa.string()).dictionary_encode(),
            "store_id": pa.array(receipts.store_ids, pa.string()).dictionary_encode(),
            "currency": pa.array([CURRENCY] * len(receipts)).dictionary_encode(),
            "item_id": pa.array(receipts.item_ids, pa.string()).dictionary_encode(),
            "quantity": pa.array(receipts.quantities),
            "unit_price": pa.array(receipts.unit_prices),
            "shelf_price": pa.array(receipts.shelf_prices),
        }
    )
