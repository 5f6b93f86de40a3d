"""The training recipe: every number that changes what comes out of training."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onepiece.context.recipe import ContextRecipe
from onepiece.models.rearec import ReaRecRecipe
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.registry import ModelRecipe
from onepiece.models.vectors import VectorRecipe
from onepiece.training.feed_recipe import FeedRecipe
from onepiece.training.intent_recipe import IntentRecipe
from onepiece.training.page_recipe import PageRecipe


class ExampleRecipe(BaseModel):
    """Which requests of the log become examples, and which candidates each one gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: Literal["any", "click", "order"] = Field(
        "order",
        description="Least that must have happened on a page for it to be trained on (the paper: "
        "click). Validation keeps every page.",
    )
    max_pages: int = Field(
        100_000, ge=0, le=100_000_000, description="Most pages trained on, drawn at random."
    )
    num_unseen: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Items of the shelf that a page did not show, drawn as negatives. Few or none: "
        "what the user would have bought is among them.",
    )
    max_receipts: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Most receipts trained on besides: what was bought of one category without a "
        "page, drawn at random from those since the first item table; 0 for none.",
    )
    num_receipt_negatives: int = Field(
        36, ge=1, le=10_000, description="Items of the shelf drawn as negatives of a receipt."
    )
    validation_days: int = Field(
        7, ge=0, le=365, description="Last days of the log, kept out of training, in days."
    )
    max_validation_pages: int = Field(
        2_000, ge=0, le=10_000_000, description="Most pages validated on, drawn at random."
    )
    max_shelf: int = Field(
        600, ge=1, le=100_000, description="Most items of the shelf kept for validation, in items."
    )


class EnsembleRecipe(BaseModel):
    """ReaRec's ensemble loss, ERL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["erl"] = Field("erl", description="Which loss this is; needs readout: mean.")
    kl_weight: float = Field(
        0.05, ge=0, le=1e3, description="How much steps are pushed apart, lambda."
    )


class ProgressiveRecipe(BaseModel):
    """ReaRec's progressive loss, PRL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["prl"] = Field("prl", description="Which loss this is; needs readout: last.")
    base: float = Field(
        5.0, ge=1, le=1e3, description="alpha: temperature of a step over that of the next."
    )
    contrast_weight: float = Field(
        1.0, ge=0, le=1e3, description="Weight of telling disturbed steps apart, RCL; 0: none."
    )
    noise_std: float = Field(
        0.01, ge=0, le=1e3, description="Standard deviation of the noise on a step's input."
    )


class CatalogueLossRecipe(BaseModel):
    """How user vectors are trained against items of the whole catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["softmax", "bce", "gbce", "bpr_max", "top1_max"] = Field(
        "softmax",
        description="softmax: cross-entropy over target and negatives; bce: each on its own; gbce: "
        "calibrated bce (gSASRec); bpr_max, top1_max: GRU4Rec's.",
    )
    num_negatives: int | None = Field(
        1_024,
        ge=1,
        le=10_000_000,
        description="Items drawn as negatives, shared by all requests of a batch; null: all items.",
    )
    popularity_exponent: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Power of an item's popularity by which it is drawn; 0: all items alike.",
    )
    logq: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of log Q taken off a negative's logit, Q being how often it is drawn.",
    )
    temperature: float = Field(1.0, gt=0, le=1e3, description="Divides the logits.")
    gbce_calibration: float = Field(
        0.75, ge=0, le=1, description="t of gbce: 0 is bce, 1 is calibrated."
    )
    regularisation: float = Field(
        1.0, ge=0, le=1e3, description="Weight of the negatives' squared scores in bpr_max."
    )
    positions: Literal["last", "all"] = Field(
        "last",
        description="last: each example's own targets; all: each item of its history as well, told "
        "from those before it (sasrec, hstu, gru4rec; no anchors, no query).",
    )
    reasoning: EnsembleRecipe | ProgressiveRecipe | None = Field(
        None, discriminator="kind", description="ReaRec's loss on all steps; softmax only."
    )

    @model_validator(mode="after")
    def _reasoning_fits(self) -> Self:
        if self.reasoning is not None and (self.kind != "softmax" or self.positions != "last"):
            raise ValueError(
                f"reasoning is {self.reasoning.kind} with kind {self.kind} and positions "
                f"{self.positions}; it needs kind softmax and positions last"
            )
        return self


class LossRecipe(BaseModel):
    """Which losses are on, and how much each counts; 0 turns one off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranking_bce: float = Field(1.0, ge=0, le=1e3, description="Weight of BCE in ranking (Eq. 18).")
    ranking_scl: float = Field(1.0, ge=0, le=1e3, description="Weight of SCL in ranking (Eq. 19).")
    retrieval_bce: float = Field(
        1.0, ge=0, le=1e3, description="Weight of BCE in retrieval (Eq. 13)."
    )
    retrieval_u2i: float = Field(
        1.0, ge=0, le=1e3, description="Weight of U2I in retrieval (Eq. 14)."
    )
    retrieval_i2u: float = Field(
        1.0, ge=0, le=1e3, description="Weight of I2U in retrieval (Eq. 15)."
    )
    retrieval_weight: float = Field(
        0.1,
        ge=0,
        le=1e3,
        description="Weight of all of retrieval beside ranking (ours); small, for the ranking's "
        "sake: weights that only retrieval has learn as fast at any weight.",
    )
    temperature: float = Field(
        1.0, gt=0, le=1e3, description="Temperature of the contrastive losses, eta."
    )
    catalogue: CatalogueLossRecipe | None = Field(
        None,
        description="Trains user vectors against the whole catalogue, in place of the losses of "
        "retrieval and, for models whose scores are inner products, of ranking.",
    )


class OptimiserRecipe(BaseModel):
    """AdamW and its learning rate over time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(2e-3, gt=0, le=1, description="Highest learning rate.")
    match_bias_multiplier: float = Field(
        5.0, gt=0, le=1e3, description="Learning rate of the match bias over that of the rest."
    )
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="Decoupled weight decay; none on the match bias."
    )
    clip_norm: float = Field(1.0, gt=0, le=1e6, description="Greatest norm of all gradients.")
    warm_up_steps: int = Field(
        100, ge=0, le=10_000_000, description="Steps of linear warm-up, in steps."
    )
    decay: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls from its highest to 0 at the end."
    )


class StoppingRecipe(BaseModel):
    """Early stopping: the epoch that is best on the validation examples is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(
        min_length=1,
        max_length=100,
        description="Validation metric that decides; greater is better, the earlier epoch wins a "
        "tie.",
    )
    patience_epochs: int = Field(
        5,
        ge=1,
        le=1_000,
        description="Training ends when the best epoch lies this many behind, in epochs.",
    )
    every_epochs: int = Field(
        1, ge=1, le=1_000, description="Epochs from one validation to the next, in epochs."
    )


class TrainingRecipe(BaseModel):
    """Everything that training does; the context's and the model's part go into the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: ContextRecipe = Field(
        default_factory=ContextRecipe, description="What the context holds."
    )
    model: ModelRecipe = Field(
        default_factory=OnePieceRecipe, description="What the model is made of."
    )
    examples: ExampleRecipe = Field(
        default_factory=ExampleRecipe, description="What is trained and validated on."
    )
    feed: FeedRecipe | None = Field(
        None, description="How a feed's interactions become examples; none: from pages."
    )
    intents: IntentRecipe | None = Field(
        None, description="How a shop's receipts become examples; none: from pages."
    )
    pages: PageRecipe | None = Field(
        None, description="How an imported data set's shown lists become examples; none: a log's."
    )
    losses: LossRecipe = Field(default_factory=LossRecipe, description="What is minimised.")
    optimiser: OptimiserRecipe = Field(
        default_factory=OptimiserRecipe, description="How it is minimised."
    )
    epochs: int = Field(1, ge=1, le=1_000, description="Passes over the examples.")
    batch_size: int = Field(64, ge=1, le=65_536, description="Requests in a step.")
    batch_order: Literal["random", "length_sorted", "by_day"] = Field(
        "random",
        description="random; length_sorted: requests of like length together, which pads less "
        "(batches are still drawn at random); by_day: one stream, day after day, each shuffled, "
        "and the model is measured on the day after (the paper).",
    )
    num_micro_batches: int = Field(
        1,
        ge=1,
        le=4_096,
        description="Parts in which a worker takes its share of a batch, one after the other, to "
        "save memory; their gradients add up.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the forward pass; bfloat16 by autocast, weights and sums stay float32.",
    )
    checkpoint_every_steps: int = Field(
        200, ge=1, le=10_000_000, description="Steps between two checkpoints, in steps."
    )
    stopping: StoppingRecipe | None = Field(
        None,
        description="When to end before the last epoch; by default never, and the last weights "
        "count.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of weights, draws and order.")

    @model_validator(mode="after")
    def _days_come_once(self) -> Self:
        if self.batch_order == "by_day" and self.epochs != 1:
            raise ValueError(
                f"batch_order is by_day and epochs is {self.epochs}: a stream is read once; set "
                "epochs to 1 or take another order"
            )
        return self

    @model_validator(mode="after")
    def _model_suits_the_loss(self) -> Self:
        catalogue = self.losses.catalogue
        if catalogue is None:
            return self
        if catalogue.positions == "all" and not isinstance(self.model, VectorRecipe):
            raise ValueError(
                f"losses.catalogue.positions is all and model.kind is {self.model.kind}, which has "
                "no vector at every position; set it to last, or model.kind to sasrec, hstu or "
                "gru4rec"
            )
        reasoning = catalogue.reasoning
        if reasoning is None:
            return self
        readout = "mean" if reasoning.kind == "erl" else "last"
        if not isinstance(self.model, ReaRecRecipe) or self.model.readout != readout:
            raise ValueError(
                f"losses.catalogue.reasoning is {reasoning.kind} and model is {self.model!r}; "
                f"give model kind rearec with readout {readout}, or no reasoning loss"
            )
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        losses = self.losses
        if losses.catalogue is not None and isinstance(self.model, VectorRecipe):
            return self
        ranking = losses.ranking_bce + losses.ranking_scl
        retrieval = losses.retrieval_weight * (
            losses.retrieval_bce
            + losses.retrieval_u2i
            + losses.retrieval_i2u
            + (losses.catalogue is not None)
        )
        for name, tasks, weight in (
            ("ranking", self.model.ranking_tasks, ranking),
            ("retrieval", self.model.retrieval_tasks, retrieval),
        ):
            if tasks and not weight:
                raise ValueError(
                    f"model.{name}_tasks is {tasks} but every weight of losses.{name}_* is 0: "
                    f"give one a weight, or empty model.{name}_tasks"
                )
        return self
