"""Writes a shop's data as parquet files in a new folder: whole, or not at all."""

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

import pyarrow as pa
import pyarrow.parquet as pq

from onepiece.datasets.receipts import CURRENCY, ShopData, receipt_event_id
from onepiece.errors import InvalidInput, OutputExists, StorageFull


def write_shop(shop: ShopData, out: Path) -> None:
    """Writes orders.parquet, catalogue.parquet, profiles.parquet and counts.json.

    One row of orders.parquet is one order line under the field names of `events/schema.py`. The
    files are written next to `out` and get their place by one rename.

    Raises:
        OutputExists: `out` is there already.
        InvalidInput: The folder that `out` should be made in cannot be written to.
        StorageFull: No room; nothing is left behind.
    """
    if out.exists():
        raise OutputExists(
            f"--out is {out}, which exists already; results are never overwritten: give a new "
            "name or move it away"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InvalidInput(
            f"--out is {out}, and nothing can be written in {out.parent} ({error.strerror}); give "
            "a folder that you may write to"
        ) from error
    try:
        pq.write_table(_orders(shop), partial / "orders.parquet")
        pq.write_table(_catalogue(shop), partial / "catalogue.parquet")
        pq.write_table(_profiles(shop), partial / "profiles.parquet")
        (partial / "counts.json").write_text(json.dumps(asdict(shop.counts), indent=2) + "\n")
        partial.chmod(0o755)
        partial.rename(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFull(
                f"no room for {out}; nothing was kept; free about 100 MB and run again"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def compare_counts(counts: Mapping[str, object], published: Mapping[str, int]) -> dict[str, bool]:
    """Says of each published count whether the files that were read have just as many."""
    return {name: counts.get(name) == expected for name, expected in published.items()}


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


def _catalogue(shop: ShopData) -> pa.Table:
    catalogue = shop.catalogue
    return pa.table(
        {
            "item_id": catalogue.item_ids,
            "category_id": catalogue.category_ids,
            "type_id": catalogue.type_ids,
            "brand_id": catalogue.brand_ids,
            "maker_id": catalogue.maker_ids,
            "department_id": catalogue.department_ids,
            "size": catalogue.sizes,
        }
    )


def _profiles(shop: ShopData) -> pa.Table:
    rows = [{"user_id": user, **asdict(labels)} for user, labels in shop.profiles.items()]
    names = ("user_id", "age_group", "income_group", "household_size")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))
