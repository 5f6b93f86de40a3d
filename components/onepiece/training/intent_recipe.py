"""What is asked of a shop's receipts: days, sizes of the samples, and how candidates are found."""

from pydantic import BaseModel, ConfigDict, Field

from onepiece.events.history_fold import HistoryRecipe
from onepiece.features.item_table import ItemTableRecipe


class IntentRecipe(BaseModel):
    """Which intents of the receipts are trained on, validated on and tested on.

    The days of the test, its size and the pool are those of data.md, "Complete Journey: floors".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_first_day: int = Field(
        330,
        ge=1,
        le=100_000,
        description="First day of the test, in days from 1, the data's first.",
    )
    num_test_days: int = Field(7, ge=1, le=365, description="Days of the test, in days.")
    num_validation_days: int = Field(
        7, ge=1, le=365, description="Days of validation, right before the test, in days."
    )
    num_training_days: int = Field(
        56, ge=1, le=3_650, description="Days of training, right before validation, in days."
    )
    max_training: int = Field(
        64_000, ge=1, le=100_000_000, description="Most intents trained on, drawn at random."
    )
    max_validation: int = Field(
        4_000, ge=1, le=10_000_000, description="Most intents validated on, drawn at random."
    )
    max_test: int = Field(
        4_000, ge=1, le=10_000_000, description="Most intents tested on, drawn at random."
    )
    sample_seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the samples and of the order in which a basket is filled; apart from "
        "the training's seed, so that all seeds are measured on the same intents.",
    )
    num_store_candidates: int = Field(
        100, ge=0, le=10_000, description="Best sellers of the store that are candidates, in items."
    )
    num_chain_candidates: int = Field(
        150, ge=0, le=10_000, description="Best sellers of the chain that are candidates, in items."
    )
    max_candidates: int = Field(
        300, ge=1, le=10_000, description="Most candidates of one intent, in items."
    )
    has_basket: bool = Field(
        False,
        description="Whether the part of the basket that was filled before, in an order drawn for "
        "each basket, is known to the model as items in the cart.",
    )
    history: HistoryRecipe = Field(
        HistoryRecipe(max_memory_events=400),
        description="How much of a household's past is kept; more than the platform's default, "
        "since the year is replayed in memory and candidates are found in it.",
    )
    item_table: ItemTableRecipe = Field(
        default_factory=ItemTableRecipe, description="Windows of the item statistics."
    )
