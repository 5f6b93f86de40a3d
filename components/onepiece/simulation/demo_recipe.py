"""The demo's recipe: one small YAML file a profile, which lists only what differs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from onepiece.errors import NotFound
from onepiece.features.item_table import ItemTableRecipe
from onepiece.parsing import read_recipe
from onepiece.serving.recipe import ServingRecipe
from onepiece.simulation.recipe import LoggingPolicyRecipe, ReplayRecipe, ShopperRecipe

PROFILES = ("quick", "demo", "full", "validation", "two_models")
_PROFILE_FOLDER = Path(__file__).with_name("profiles")


class DemoRecipe(BaseModel):
    """Everything that changes the demo's numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replay: ReplayRecipe = Field(ReplayRecipe(), description="Who shops, and when.")
    shopper: ShopperRecipe = Field(ShopperRecipe(), description="How they browse.")
    logging_policy: LoggingPolicyRecipe = Field(
        LoggingPolicyRecipe(), description="How the policy of the logging weeks explores."
    )
    item_table: ItemTableRecipe = Field(
        ItemTableRecipe(), description="Windows of the item statistics."
    )
    training: str = Field(
        "complete_journey_joint",
        pattern=r"^[a-z0-9_]+$",
        description="Name of the training recipe in ray_jobs/recipes.",
    )
    ranking_training: str | None = Field(
        None,
        pattern=r"^[a-z0-9_]+$",
        description="The same for a second model that ranks, while the first retrieves; null for "
        "one model that does both.",
    )
    serving: ServingRecipe = Field(ServingRecipe(), description="Candidates and score fusion.")
    num_receipt_weeks: int = Field(
        8,
        ge=0,
        le=51,
        description="Weeks before the logging weeks whose receipts may be trained on: item tables "
        "and features are made for them too.",
    )
    num_partitions: int = Field(4, ge=1, le=64, description="Partitions of the event log.")
    num_replay_processes: int = Field(
        2, ge=1, le=64, description="Processes that replay the counterfactual cells."
    )


def load_profile(name: str) -> DemoRecipe:
    """Reads a profile by name, or a recipe of one's own by path.

    Raises:
        NotFound: Neither a profile nor a file.
        InvalidRecipe: Not YAML, an unknown key, or a value out of bounds.
    """
    if name in PROFILES:
        return read_recipe(_PROFILE_FOLDER / f"{name}.yaml", DemoRecipe)
    path = Path(name)
    if not path.is_file():
        raise NotFound(
            f"no profile {name!r}; give one of {', '.join(PROFILES)}, or a YAML file's path"
        )
    return read_recipe(path, DemoRecipe)
