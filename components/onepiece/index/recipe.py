"""The recipe of an index: which kind, and how carefully it is built and searched."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class IndexRecipe(BaseModel):
    """How item vectors are indexed; saved next to the index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["flat", "hnsw"] = Field(
        default="flat",
        description="flat: every allowed item is scored, exact, and fast enough up to some "
        "100,000 items; hnsw: a graph is walked (OnePiece 5.1).",
    )
    num_links: int = Field(
        default=32, ge=4, le=128, description="Links of an item in the graph (HNSW's M)."
    )
    build_breadth: int = Field(
        default=200, ge=8, le=2_000, description="Items looked at to place one (efConstruction)."
    )
    search_breadth: int = Field(
        default=256, ge=8, le=10_000, description="Items looked at in a search (efSearch)."
    )
    exact_below: int = Field(
        default=4_096,
        ge=0,
        description="Requests that may get at most this many items are scored exactly: at 64 "
        "dimensions that takes 0.2 ms, and HNSW misses many items of a small set.",
    )

    @model_validator(mode="after")
    def _the_graph_is_built_as_broad_as_it_is_linked(self) -> Self:
        if self.build_breadth < self.num_links:
            raise ValueError(
                f"build_breadth is {self.build_breadth}, less than num_links ({self.num_links}); "
                "raise the first or lower the second"
            )
        return self
