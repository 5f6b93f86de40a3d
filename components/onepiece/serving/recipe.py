"""The serving recipe: what changes the answers and is not learned."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FusionRecipe(BaseModel):
    """How the tasks' probabilities become one score.

    `score = relevance_weight * r + value_weight * r * price`, with
    `r = click ** click_exponent * order ** order_exponent`. The defaults leave the probability of
    an order: chosen here, because the order is what the experiment counts.

    Source:
        OnePiece (arXiv:2509.18091) 5.1, Eq. 21; its third term is left out, since there are no
        paid placements here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    click_exponent: float = Field(default=0.0, ge=0.0, le=10.0, description="a of Eq. 21.")
    order_exponent: float = Field(default=1.0, ge=0.0, le=10.0, description="b of Eq. 21.")
    relevance_weight: float = Field(default=1.0, ge=0.0, le=1e6, description="alpha of Eq. 21.")
    value_weight: float = Field(
        default=0.0, ge=0.0, le=1e6, description="beta of Eq. 21, per unit of currency."
    )

    @model_validator(mode="after")
    def _something_is_scored(self) -> Self:
        if self.relevance_weight == 0.0 and self.value_weight == 0.0:
            raise ValueError(
                "relevance_weight and value_weight are both 0, so every item would score 0; "
                "raise one of them"
            )
        return self


class ServingRecipe(BaseModel):
    """What changes the answers and is not learned; given at start-up, never by the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_candidates: int = Field(
        default=100,
        ge=1,
        le=1_000,
        description="Items that retrieval hands to pre-rank in a recommendation, at least the "
        "items wanted; chosen here: five pages of 20.",
    )
    fusion: FusionRecipe = Field(default_factory=FusionRecipe, description="See FusionRecipe.")
    least_change: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="A request's ranking stops reasoning once a step moved no candidate's share of "
        "the last task's softmax by as much; 0 takes all steps. `onepiece training depth` chooses "
        "it for a bundle, whose model needs has_early_exit.",
    )
