"""How the shown lists of an imported data set become examples: the split, and what is read."""

from pydantic import BaseModel, ConfigDict, Field


class PageRecipe(BaseModel):
    """Which lists are trained, validated and tested on, by the start of their sessions.

    A session is what the data set calls one; where it names none, a user's events that follow one
    another within `session_gap_minutes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_share: float = Field(
        0.2, gt=0, lt=1, description="Share of the sessions, those that began last, to test on."
    )
    validation_share: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Share of the other sessions, those that began last, to validate on.",
    )
    max_pages_per_session: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="Last lists of a session to train on, in lists. Validation and test keep one, "
        "the last, as trivago's challenge does.",
    )
    session_gap_minutes: int = Field(
        30,
        ge=1,
        le=100_000,
        description="Pause after which a user's next event begins a new session, in minutes; "
        "chosen here, because it splits trivago's users into as many sessions as it names (6,103 "
        "and 6,089).",
    )
    has_list_features: bool = Field(
        True,
        description="Whether candidates have the features of the shown list: its order, its "
        "prices, who took them before. Off for a model that is to be served: no request brings "
        "them, and a server refuses the bundle.",
    )
