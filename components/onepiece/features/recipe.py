"""The features' recipe: how much of the past is kept, and how anchors and sales are counted."""

from pydantic import BaseModel, ConfigDict, Field

from onepiece.events.anchors import AnchorRecipe
from onepiece.events.history import HistoryRecipe


class ItemTableRecipe(BaseModel):
    """Windows of the item statistics.

    Chosen here, after the first trials on Complete Journey: these windows gave its floors, and
    "sold so far or by 3 stores" covers 89% of what households bought without a look ahead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_sales_days: int = Field(60, ge=1, le=3650, description="Sales in a store, in days.")
    chain_sales_days: int = Field(30, ge=1, le=3650, description="Sales in the chain, in days.")
    price_now_days: int = Field(14, ge=1, le=3650, description="Median price now, in days.")
    price_usual_days: int = Field(120, ge=1, le=3650, description="Usual median price, in days.")
    wide_days: int = Field(60, ge=1, le=3650, description="Wide distribution, in days.")
    wide_min_stores: int = Field(
        3, ge=1, le=100_000, description="Distinct stores that make an item sold everywhere."
    )


class FeaturesRecipe(BaseModel):
    """What whoever writes features must agree on, online and offline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: HistoryRecipe = Field(
        HistoryRecipe(), description="Bounds of the histories, in the consumer and the batch path."
    )
    anchors: AnchorRecipe = Field(
        AnchorRecipe(), description="How the daily batch counts anchors; histories do without."
    )
    item_table: ItemTableRecipe = Field(
        ItemTableRecipe(), description="Windows of the daily item tables."
    )
