"""ReaRec: latent reasoning over a causal backbone, whose last output is fed back K times."""

# Shape suffixes: B = requests, K = reasoning steps, P = K + 1 outputs (the backbone's first),
#                 D = width, N = items.

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.causal import CausalState
from onepiece.models.hstu import Hstu, HstuRecipe
from onepiece.models.inputs import ContextTensors
from onepiece.models.sasrec import SasRec, SasRecRecipe
from onepiece.models.vectors import VectorModel, VectorRecipe


class ReaRecRecipe(VectorRecipe):
    """What a ReaRec is made of; sizes are the backbone's, and smaller here than the paper's."""

    kind: Literal["rearec"] = Field("rearec", description="Which model this is.")
    backbone: Literal["sasrec", "hstu"] = Field("sasrec", description="What reads the sequence.")
    width: int = Field(64, ge=4, le=4_096, description="Width of an item, d, in floats.")
    num_layers: int = Field(2, ge=1, le=64, description="Layers of the backbone.")
    num_heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide width.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of values dropped in training.")
    num_steps: int = Field(
        2, ge=0, le=16, description="K, how often the output is fed back (the paper: 2 is best)."
    )
    has_step_positions: bool = Field(
        True, description="Whether each step's input has an embedding of its step, RPE."
    )
    readout: Literal["mean", "last"] = Field(
        "mean",
        description="The user vector: mean of all outputs (for the ensemble loss, ERL) or the last "
        "one (for the progressive loss, PRL).",
    )


@dataclass(frozen=True, slots=True)
class Reasoning:
    """B requests after all their steps."""

    read: CausalState
    """The backbone before the first step."""
    steps_BPD: Tensor
    """(B, K + 1, D) outputs r_0 to r_K."""


class ReaRec(VectorModel):
    """Gives one user vector a request; scores are inner products with the item table.

    It implements `UserVectors` and `GroupScores`. The input of step k is dropout(LN(r_(k-1) +
    RPE_k)); it sees the sequence and earlier steps, whose keys and values are kept. r_0 is the
    backbone's output before any normalisation of its own, so HSTU's cosine is not used here:
    temperatures are the losses' business.

    Source:
        Tang et al. 2025, ReaRec (arXiv:2503.22675), section 3.2.
    """

    def __init__(
        self, recipe: ReaRecRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.recipe: ReaRecRecipe = recipe
        self.backbone = _build_backbone(recipe, context=context, vocabulary=vocabulary)
        self.norm = nn.LayerNorm(recipe.width)
        self.dropout = nn.Dropout(recipe.dropout)
        if recipe.has_step_positions:
            # The authors' standard deviation of every weight.
            self.step_positions_KD = nn.Parameter(
                0.02 * torch.randn(recipe.num_steps, recipe.width)
            )

    def encode_context(self, context: ContextTensors) -> Reasoning:
        """Reads each request's sequence and takes all steps."""
        state = read = self.backbone.read(context)
        outputs = [read.last_BD]
        for step in range(self.recipe.num_steps):
            state = self._take(self._feed(step, outputs[-1]), state)
            outputs.append(state.last_BD)
        return Reasoning(read, torch.stack(outputs, dim=1))

    def user_vectors(self, encoding: Reasoning) -> Tensor:
        """Returns (B, 1, D)."""
        if self.recipe.readout == "mean":
            return encoding.steps_BPD.mean(1, keepdim=True)
        return encoding.steps_BPD[:, -1:]

    def item_vectors(self, item_rows_N: Tensor) -> Tensor:
        """Returns (N, D) for rows of any shape N."""
        vectors: Tensor = self.backbone.tokens.items(item_rows_N)
        return vectors

    def step_vectors(self, encoding: Reasoning) -> Tensor:
        """Returns (B, K + 1, D), r_0 to r_K."""
        return encoding.steps_BPD

    def noisy_step_vectors(self, encoding: Reasoning, noise_BKD: Tensor) -> Tensor:
        """Takes all steps again from disturbed inputs.

        Step k starts from the clean r_(k-1) + RPE_k plus the noise, and sees the sequence and the
        earlier noisy steps.

        Args:
            encoding: The clean steps.
            noise_BKD: (B, K, D) what is added to the input of each step.

        Returns:
            (B, K, D), noisy r_1 to r_K.

        Source:
            ReaRec, section 3.4, reasoning-aware contrastive learning.
        """
        state, outputs = encoding.read, []
        for step in range(self.recipe.num_steps):
            clean_BD = self._feed(step, encoding.steps_BPD[:, step])
            state = self._take(clean_BD + noise_BKD[:, step], state)
            outputs.append(state.last_BD)
        return torch.stack(outputs, dim=1) if outputs else noise_BKD

    def _feed(self, step: int, output_BD: Tensor) -> Tensor:
        """Marks an output with the step that it is fed to: r + RPE."""
        if not self.recipe.has_step_positions:
            return output_BD
        return output_BD + self.step_positions_KD[step]

    def _take(self, input_BD: Tensor, state: CausalState) -> CausalState:
        return self.backbone.read_on(self.dropout(self.norm(input_BD)), state)


def _build_backbone(
    recipe: ReaRecRecipe, *, context: ContextRecipe, vocabulary: Vocabulary
) -> SasRec | Hstu:
    sizes = {
        "width": recipe.width,
        "num_layers": recipe.num_layers,
        "num_heads": recipe.num_heads,
        "dropout": recipe.dropout,
    }
    match recipe.backbone:
        case "sasrec":
            return SasRec(
                SasRecRecipe.model_validate(sizes), context=context, vocabulary=vocabulary
            )
        case "hstu":
            return Hstu(HstuRecipe.model_validate(sizes), context=context, vocabulary=vocabulary)
