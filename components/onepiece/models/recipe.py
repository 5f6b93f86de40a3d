"""The model's half of a bundle's recipe: sizes, heads and which mask."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

RetrievalTask = Literal["impression", "click", "order"]
RankingTask = Literal["click", "cart", "order"]


class OnePieceRecipe(BaseModel):
    """What a OnePiece model is made of.

    The defaults are small enough for one CPU core; the paper's figures have 2 layers and 4 heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["onepiece"] = Field("onepiece", description="Which model this is.")
    width: int = Field(32, ge=4, le=4_096, description="Width of a token, in floats.")
    num_layers: int = Field(1, ge=1, le=64, description="Layers of the backbone.")
    num_heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide width.")
    feedforward_ratio: int = Field(
        2, ge=1, le=16, description="Hidden width of the feed-forward part, in widths."
    )
    item_ids: Literal["learned", "frozen", "none"] = Field(
        "frozen",
        description="Item id embedding: learned; frozen, random and never trained, which cannot "
        "overfit; or none.",
    )
    id_width: int = Field(16, ge=1, le=4_096, description="Width of an item id, in floats.")
    ties_item_ids: bool = Field(
        False,
        description="Whether an item's id embedding goes past the MLPs into its token and its "
        "vector alike, as in SASRec; needs id_width = width (ours, for feeds).",
    )
    side_width: int = Field(
        8, ge=1, le=4_096, description="Width of each side feature and profile label, in floats."
    )
    has_side_information: bool = Field(
        True,
        description="Whether more is read of an item than its id: labels, popularity, counts and "
        "ages in the history, price and sales of a candidate (table 3).",
    )
    action_mask_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of history tokens that hide their action, and the counts that tell it, "
        "in training (onepiece.md 8.6).",
    )
    anchor_mask_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of requests whose anchors are hidden in training, so that the history "
        "is learned from as well (ours).",
    )
    reads_newest_item: bool = Field(
        False,
        description="Whether the query token holds the newest item of the history as well, which "
        "stands in for the query of a feed; vectors are read there (ours).",
    )
    has_match_bias: bool = Field(
        True, description="Whether a logit rises where key and query share an attribute."
    )
    norm: Literal["layer", "group"] = Field(
        "layer",
        description="Normalisation in the backbone: layer; or group, with a scale and a shift for "
        "each of history, anchors, descriptors, and candidates with reasoning rows (our reading).",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of values dropped in training, of each embedded token and of what each "
        "layer adds to it.",
    )
    attention: Literal["bidirectional", "causal"] = Field(
        "bidirectional",
        description="bidirectional: a token sees all of the context; causal: itself and those "
        "before it, in the order history, anchors, user, query (tables 4 and 5). Candidates and "
        "reasoning blocks see all of the context either way.",
    )
    mask: Literal["shared", "literal"] = Field(
        "shared",
        description="shared: the context never sees candidates and is encoded once for all "
        "groups (ours); literal: it sees the candidates of each group (the paper).",
    )
    group_size: Annotated[int, Field(ge=1, le=10_000)] | Literal["all"] = Field(
        12,
        description="Most candidates of a group, C, 1 to 10,000: 1 scores each alone; all puts all "
        "of a request into one group (table 6).",
    )
    has_visible_candidates: bool = Field(
        True, description="Whether the candidates of a group see one another (table 5)."
    )
    task_assignment: Literal["progressive", "last"] = Field(
        "progressive",
        description="progressive: one task a step, easy to hard; last: all tasks on the last step "
        "(tables 4 and 5).",
    )
    retrieval_tasks: tuple[RetrievalTask, ...] = Field(
        ("impression", "click"),
        max_length=3,
        description="Tasks of the retrieval head, easy to hard; empty for no such head.",
    )
    num_retrieval_steps: int = Field(
        2, ge=0, le=16, description="Reasoning steps of the retrieval head."
    )
    retrieval_block_size: Literal[1, 2] = Field(
        2,
        description="Rows of a reasoning block of retrieval, M: 2 for user and query, 1 for the "
        "query alone (the paper's production).",
    )
    recognition_width: int = Field(
        128,
        ge=0,
        le=1_024,
        description="Width of the fixed code by which an inner product recognises an item of the "
        "history, as match bias does in ranking, in floats: a power of two, or 0 for none (ours).",
    )
    reads_anchors: bool = Field(
        True,
        description="Whether the backbone reads the anchors; else they can only be recalled by the "
        "item that they are (recognition_width), and teach nothing about others (ours).",
    )
    separate_recall: bool = Field(
        False,
        description="Whether the weights of recalled items are learned beside the vectors, never "
        "changing them, from a token's place as well: lists that explain a part of the targets "
        "then take nothing from what the history teaches (ours, for feeds).",
    )
    ranking_tasks: tuple[RankingTask, ...] = Field(
        ("click", "cart", "order"),
        max_length=3,
        description="Tasks of the ranking head, easy to hard; empty for no such head.",
    )
    num_ranking_steps: int = Field(
        3, ge=0, le=16, description="Reasoning steps of the ranking head, K."
    )
    has_early_exit: bool = Field(
        False,
        description="Whether ranking is trained to be read after any number of steps, so that a "
        "request may stop before the last one (ours, onepiece.md 8.3).",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(
                f"width is {self.width}, which num_heads ({self.num_heads}) does not divide; "
                "change one of the two"
            )
        if self.recognition_width & (self.recognition_width - 1):
            raise ValueError(
                f"recognition_width is {self.recognition_width}; give a power of two, or 0 for none"
            )
        if self.separate_recall and not (self.recognition_width and self.retrieval_tasks):
            raise ValueError(
                f"separate_recall is true with recognition_width {self.recognition_width} and "
                f"retrieval_tasks {self.retrieval_tasks}: nothing would be recalled; change one"
            )
        if not self.retrieval_tasks and not self.ranking_tasks:
            raise ValueError(
                "retrieval_tasks and ranking_tasks are both empty: a model needs at least one "
                "task of one head"
            )
        if self.has_early_exit and not self.ranking_tasks:
            raise ValueError(
                "has_early_exit is true and ranking_tasks is empty: only ranking stops early; name "
                "a ranking task, or set has_early_exit to false"
            )
        if self.item_ids == "none" and not self.has_side_information:
            raise ValueError(
                "item_ids is none and has_side_information is false: nothing of an item would be "
                "read; change one of the two"
            )
        if self.ties_item_ids and (self.item_ids == "none" or self.id_width != self.width):
            raise ValueError(
                f"ties_item_ids is true with item_ids {self.item_ids}, id_width {self.id_width} "
                f"and width {self.width}: it needs ids as wide as a token; set id_width to width"
            )
        for name in ("retrieval_tasks", "ranking_tasks"):
            tasks = getattr(self, name)
            if len(set(tasks)) != len(tasks):
                raise ValueError(f"{name} is {tasks}: each task may be named once")
        return self

    def blocks_of(self, num_tasks: int, *, num_steps: int) -> list[int]:
        """Says which block each task of a head with `num_steps` steps reads."""
        if self.task_assignment == "last":
            return [num_steps] * num_tasks
        return task_blocks(num_tasks, num_steps)


def task_blocks(num_tasks: int, num_steps: int) -> list[int]:
    """Says which block each task reads: the last reads B_K, the one before it B_(K-1) and so on.

    With K tasks and K steps that is one task a step, as in the paper. With fewer steps the
    first tasks share B_0, the backbone's own output.

    Source:
        OnePiece (arXiv:2509.18091), 3.4; the rule for fewer steps than tasks is ours.
    """
    return [max(0, num_steps - (num_tasks - 1 - task)) for task in range(num_tasks)]
