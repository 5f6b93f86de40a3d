"""How a feed's interactions become examples: the split, the targets, the anchors."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from onepiece.features.item_to_item import ItemToItemRecipe


class FeedRecipe(BaseModel):
    """Which interactions of which users are targets, and what stands in for a query's anchors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["leave_one_out", "by_time"] = Field(
        "leave_one_out",
        description="leave_one_out: each user's last item is for the test and the one before it "
        "for validation; by_time: the last days are for the test and those before for validation.",
    )
    test_days: int = Field(
        1, ge=1, le=3_650, description="Days of the test, by_time only, in UTC days."
    )
    validation_days: int = Field(
        1, ge=1, le=3_650, description="Days before the test for validation, by_time only."
    )
    max_targets_per_user: int = Field(
        1_000, ge=1, le=1_000_000, description="Most items of a user to train on, drawn at random."
    )
    max_validation_users: int = Field(
        1_000_000, ge=1, le=1_000_000_000, description="Most users to validate on, drawn at random."
    )
    item_to_item: ItemToItemRecipe | None = Field(
        None,
        description="Fills the clicked anchors with what other users took next to the last items; "
        "none: a feed has no anchors.",
    )
