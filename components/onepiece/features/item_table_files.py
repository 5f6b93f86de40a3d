"""What a shop knows of its items beside the event log, as parquet: other sales, and promotions."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onepiece.errors import InvalidDataset, NotFound
from onepiece.features.item_table import SalesLedger, WeekPromotions

SALES = pa.schema(
    {
        "item_id": pa.string(),
        "store_id": pa.string(),
        "unit_price": pa.float32(),
        "at_ms": pa.int64(),
        "received_at_ms": pa.int64(),
    }
)
"""Order lines that are in no log, such as those of tills: one row a line, price of one unit."""
PROMOTIONS = pa.schema(
    {
        "store_id": pa.string(),
        "item_id": pa.string(),
        "from_ms": pa.int64(),
        "to_ms": pa.int64(),
        "is_displayed": pa.bool_(),
        "is_mailed": pa.bool_(),
    }
)
"""What is promoted where, from an instant to before another, both Unix ms."""


def read_sales(path: Path) -> SalesLedger:
    """Makes a ledger of a file with the columns of `SALES`.

    Raises:
        NotFound: There is no such file.
        InvalidDataset: A column or a value is missing, or of another type.
    """
    table = _read(path, SALES)
    ledger = SalesLedger()
    ledger.add_columns(
        item_ids=table["item_id"].to_numpy(),
        store_ids=table["store_id"].to_numpy(),
        unit_prices=table["unit_price"].to_numpy(),
        at_ms=table["at_ms"].to_numpy(),
        received_at_ms=table["received_at_ms"].to_numpy(),
    )
    return ledger


def read_promotions(path: Path) -> Callable[[int], WeekPromotions]:
    """Reads a file with the columns of `PROMOTIONS`; several rows of a store and item add up.

    Returns:
        A function that says what is promoted at an instant, Unix ms.

    Raises:
        NotFound: There is no such file.
        InvalidDataset: A column or a value is missing, or of another type.
    """
    table = _read(path, PROMOTIONS)

    def promotions_at(at_ms: int) -> WeekPromotions:
        is_on = pc.and_(pc.less_equal(table["from_ms"], at_ms), pc.greater(table["to_ms"], at_ms))
        grouped = (
            table.filter(is_on)
            .group_by(["store_id", "item_id"])
            .aggregate([("is_displayed", "any"), ("is_mailed", "any")])
        )
        return WeekPromotions(
            store_ids=grouped["store_id"].to_numpy(),
            item_ids=grouped["item_id"].to_numpy(),
            is_displayed=grouped["is_displayed_any"].to_numpy(),
            is_mailed=grouped["is_mailed_any"].to_numpy(),
        )

    return promotions_at


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    if not path.is_file():
        raise NotFound(f"{path} is not a file; give a parquet file with {', '.join(schema.names)}")
    try:
        table = pq.read_table(path, columns=schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError) as error:
        wanted = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InvalidDataset(f"{path}: {error}; it needs the columns {wanted}") from error
    empty = [name for name in schema.names if table[name].null_count]
    if empty:
        raise InvalidDataset(f"{path} has rows without {', '.join(empty)}; give every value")
    return table
