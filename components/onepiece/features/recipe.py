"""The features' recipe: how much of a user's past is kept, and how anchors are counted."""

from pydantic import BaseModel, ConfigDict, Field

from onepiece.events.anchors import AnchorRecipe
from onepiece.events.history import HistoryRecipe


class FeaturesRecipe(BaseModel):
    """What whoever writes features must agree on, online and offline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: HistoryRecipe = Field(
        HistoryRecipe(), description="Bounds of the histories, in the consumer and the batch path."
    )
    anchors: AnchorRecipe = Field(
        AnchorRecipe(), description="How the daily batch counts anchors; histories do without."
    )
