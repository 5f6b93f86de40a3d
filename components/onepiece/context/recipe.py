"""What the context holds and how much of each part: the half of a bundle that shapes its input."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MatchFeature = Literal["item", "category", "type", "brand", "maker", "department"]
"""A column of the vocabulary in which two items can be equal."""

AnchorGroup = Literal["exposed", "clicked", "ordered"]
"""Which of a query's items an anchor group holds."""


class ContextRecipe(BaseModel):
    """How many tokens each part of the context may use, and which parts are on.

    The numbers are chosen here, from the first trials on Complete Journey: history of the query's
    category decides (40 tokens of it are enough), anchors change nothing measurable there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_recent_tokens: int = Field(
        24, ge=0, le=1_000, description="Most recent items of any category kept, in tokens."
    )
    max_memory_tokens: int = Field(
        40, ge=0, le=1_000, description="Most recent items of the query's category kept, in tokens."
    )
    max_anchor_tokens: int = Field(
        10, ge=0, le=1_000, description="Best items kept of each anchor group, in tokens."
    )
    anchor_groups: tuple[AnchorGroup, ...] = Field(
        ("exposed", "clicked", "ordered"),
        max_length=3,
        description="Anchor groups that are read, in the order of their tokens.",
    )
    max_query_words: int = Field(
        6, ge=0, le=100, description="First words of the query that are read, in words."
    )
    has_query: bool = Field(
        True, description="Whether the query's id and words are read; else it is unknown."
    )
    has_situation: bool = Field(
        True, description="Whether the situational descriptors are read; else they are 0."
    )
    has_profile: bool = Field(
        True, description="Whether the user's profile labels are read; else each is unknown."
    )
    match_features: tuple[MatchFeature, ...] = Field(
        ("item", "type", "maker"),
        max_length=6,
        description="Columns in which a candidate may recognise a token (match bias), in order.",
    )

    @property
    def max_history_tokens(self) -> int:
        """Most tokens of the history, recent and memory together: positions it needs."""
        return self.max_recent_tokens + self.max_memory_tokens

    @property
    def max_tokens(self) -> int:
        """Most tokens of one context; each anchor group has two boundaries."""
        num_groups = len(self.anchor_groups)
        return self.max_history_tokens + num_groups * (self.max_anchor_tokens + 2)

    @model_validator(mode="after")
    def _groups_differ(self) -> Self:
        if len(set(self.anchor_groups)) != len(self.anchor_groups):
            raise ValueError(f"anchor_groups is {self.anchor_groups}: each group may be named once")
        return self
