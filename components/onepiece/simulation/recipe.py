"""The recipes of a replay: who shops, when, how they browse, and how the log explores.

Demand is real; everything in `ShopperRecipe` is assumed. Each assumption states its reason, and
none of them depends on which model answers.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onepiece.events.schema import Identifier

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A probability or a weight in [0, 1]."""

LAST_WHOLE_DAY = 365
"""2017-12-31, the last day of Complete Journey that is whole in UTC."""


class ShopperRecipe(BaseModel):
    """How a shopper reads a page, clicks, fills the basket and pays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    continue_probability: Share = Field(
        0.95,
        description="Probability of going on to the next place of the page. The cascade of "
        "Craswell et al. 2008 with the abandonment of Chapelle and Zhang 2009; 0.95 is the "
        "patient reader of Moffat and Zobel 2008 (rank-biased precision), since she knows what "
        "she wants: 38% of her pages are read to place 20.",
    )
    stop_when_found_probability: Share = Field(
        0.8,
        description="Probability of leaving the page at the place where the last item that she "
        "came for went into the basket; chosen here: most shoppers then do the next errand, a "
        "few look on (satisfaction in Chapelle and Zhang 2009).",
    )
    demanded_click_probability: Share = Field(
        0.95,
        description="Probability of clicking a seen item that she came for; chosen here: she "
        "knows it, and now and then overlooks it.",
    )
    substitute_click_probability: Share = Field(
        0.3,
        description="Probability of clicking a seen substitute of likeness 1; multiplied by the "
        "likeness. Chosen here: a third of what she came for, so that clicks are more than "
        "orders, and are no proof of demand.",
    )
    other_click_probability: Share = Field(
        0.01,
        description="Probability of clicking any other seen item; chosen here: noise, as in "
        "every click log.",
    )
    demanded_cart_probability: Share = Field(
        0.97,
        description="Probability that a clicked item that she came for goes into the basket; "
        "chosen here: she bought it in truth, so little holds her back.",
    )
    substitute_cart_probability: Share = Field(
        0.3,
        description="Probability that a clicked substitute goes into the basket, in the place "
        "and quantity of what she came for; chosen here: most looks at a substitute end there.",
    )
    other_cart_probability: Share = Field(
        0.05,
        description="Probability that another clicked item goes into the basket, once; chosen "
        "here: with its clicks one seen item in 2,000, a rare impulse.",
    )
    demanded_order_probability: Share = Field(
        0.97,
        description="Probability that a demanded item in the basket is paid for at the end of "
        "the visit; chosen here: the receipt shows that she paid, a few lines change her mind.",
    )
    substitute_order_probability: Share = Field(
        0.9, description="The same for a substitute; chosen here: a little less sure."
    )
    other_order_probability: Share = Field(
        0.5, description="The same for another item; chosen here: half of the impulses pass."
    )
    unmet_demand: Literal["lost", "bought_elsewhere"] = Field(
        "lost",
        description="What becomes of demand that the platform did not meet: lost, so that an arm "
        "that answers badly has poorer histories; or bought at the till after the visit, as the "
        "receipt shows, which the shop then knows of but no arm is credited with.",
    )
    maker_weight: Share = Field(
        0.4,
        description="Share of likeness for the same manufacturer; chosen here: brand counts "
        "most. (The data's own brand column only tells national from private label.)",
    )
    size_weight: Share = Field(
        0.3, description="Share of likeness for the same package size; chosen here."
    )
    price_weight: Share = Field(
        0.3, description="Share of likeness for a price that is as near as can be; chosen here."
    )
    max_price_gap: float = Field(
        0.25,
        gt=0.0,
        le=10.0,
        description="Greatest difference between a substitute's price and the demanded item's, "
        "as a share of the latter; chosen here: a quarter is felt at the shelf.",
    )

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        total = self.maker_weight + self.size_weight + self.price_weight
        if abs(total - 1.0) > 1e-9:
            raise ValueError(
                f"maker_weight + size_weight + price_weight is {total}; make it 1, so that a "
                "likeness is in [0, 1]"
            )
        return self


class LoggingPolicyRecipe(BaseModel):
    """How the policy that makes the training log explores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exploration_share: Share = Field(
        0.2,
        description="Probability that a place of the page is drawn uniformly instead of by "
        "popularity; chosen here: four places of 20, enough that every item of a usual pool "
        "is shown sometimes, few enough that shoppers still find what is popular.",
    )


class ReplayRecipe(BaseModel):
    """Which households shop through the platform, and in which phases.

    Days are the data's: day 1 is 2017-01-01. Before `logging_start_day` every receipt is an
    event. Then the sampled households shop through the logging policy for `num_logging_weeks`,
    and right after it through the experiment for `num_live_weeks`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of every draw of the replay.")
    num_households: int | None = Field(
        500, ge=1, description="Households that shop through the platform; null for all active."
    )
    min_num_baskets: int = Field(
        20,
        ge=1,
        description="Receipts before the logging weeks that make a household active; chosen "
        "here: about one every two weeks, so that a history exists to be read.",
    )
    logging_start_day: int = Field(
        295,
        ge=2,
        le=LAST_WHOLE_DAY,
        description="First data day of the logging weeks; chosen so that the live weeks are the "
        "data's last whole ones, on which no default was ever compared (docs/decisions/0013).",
    )
    num_logging_weeks: int = Field(8, ge=1, le=51, description="Weeks the logging policy answers.")
    num_live_weeks: int = Field(2, ge=0, le=51, description="Weeks of the experiment.")
    page_size: int = Field(20, ge=1, le=100, description="Items of a page.")
    unsearched_category_ids: tuple[Identifier, ...] = Field(
        ("coupon/misc items", "fuel", "coupon"),
        description="Categories that are no intent: fuel is bought at the pump, and coupons, "
        "gift cards and unnamed articles are rung up under words that nobody searches for.",
    )

    @model_validator(mode="after")
    def _phases_fit_the_data(self) -> Self:
        end_day = self.logging_start_day + 7 * (self.num_logging_weeks + self.num_live_weeks) - 1
        if end_day > LAST_WHOLE_DAY:
            raise ValueError(
                f"logging_start_day {self.logging_start_day} with {self.num_logging_weeks} "
                f"logging and {self.num_live_weeks} live weeks ends on day {end_day}, after the "
                f"data's last whole day ({LAST_WHOLE_DAY}); start earlier or take fewer weeks"
            )
        return self

    @property
    def live_start_day(self) -> int:
        """The first data day of the experiment."""
        return self.logging_start_day + 7 * self.num_logging_weeks

    @property
    def end_day(self) -> int:
        """The data day after the last one replayed."""
        return self.live_start_day + 7 * self.num_live_weeks
