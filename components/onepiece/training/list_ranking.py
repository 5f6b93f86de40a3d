"""Measures how high the items taken stand among the items of their list, for any ranker.

A ranker is a function from a batch to scores, so that a model, a floor and a conventional ranker
are measured on the same lists by the same lines.
"""

# Shape suffixes: B = requests, N = candidates of a batch, R = lists measured, K = tasks,
#                 P = positives.

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import Model
from onepiece.training.metrics import first_reciprocal_ranks, worst_ranks
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.spine import Stage

Scores = Callable[[ExampleBatch], NDArray[np.float64]]
"""Gives (B, N) float64, higher is better; what it says of padding is not read."""
NO_CUTOFF = 1_000_000
"""Longer than any list: the whole list counts."""


@dataclass(frozen=True, slots=True)
class ListRanks:
    """How well each list was ranked, lists in the order of the examples."""

    reciprocal_R: NDArray[np.float64]
    """(R,) 1 / rank of the best-ranked item that was taken, in (0, 1]."""
    users_R: NDArray[np.int64]
    """(R,) code of the user."""
    num_without: int
    """Lists of which nothing was taken; they are not measured."""

    @property
    def mean(self) -> float:
        """MRR over the whole list; NaN without a list."""
        return float(self.reciprocal_R.mean()) if len(self.reciprocal_R) else float("nan")


def rank_lists(
    scores: Scores, examples: Examples, *, least: Stage = Stage.CLICKED, batch_size: int = 256
) -> ListRanks:
    """Ranks the validation lists of some examples, ties counting against the ranker.

    Args:
        scores: The ranker.
        examples: Their validation rows are read; of a test these are all rows.
        least: An item that came at least as far was taken.
        batch_size: Lists scored at a time.
    """
    rows = examples.rows(is_validation=True)
    ranks, requests = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    users: list[int] = []
    num_without = 0
    for start in range(0, len(rows), batch_size):
        batch = examples.batch(rows[start : start + batch_size])
        scores_BN = scores(batch)
        for place, is_real_N in enumerate(batch.context.candidate_mask):
            is_taken_N = batch.stages[place, is_real_N] >= least
            if not is_taken_N.any():
                num_without += 1
                continue
            ranks_P = worst_ranks(scores_BN[place, is_real_N], is_taken_N)
            ranks.append(ranks_P)
            requests.append(np.full(len(ranks_P), len(users)))
            users.append(int(batch.user_codes[place]))
    reciprocal_R = first_reciprocal_ranks(
        np.concatenate(ranks), np.concatenate(requests), cutoff=NO_CUTOFF
    )
    return ListRanks(reciprocal_R, np.array(users, dtype=np.int64), num_without)


def model_scores(model: Model) -> Scores:
    """Makes a ranker of a model: the logits of its last ranking task.

    Args:
        model: In evaluation mode, with a ranking head.
    """

    def scores(batch: ExampleBatch) -> NDArray[np.float64]:
        with torch.inference_mode():
            candidates = candidate_tensors(
                batch.context,
                group_size=model.recipe.group_size,
                seeds_B=batch.seeds,
                device=model.device,
            )
            context = context_tensors(batch.context, device=model.device)
            logits_BNK = model.score_candidates(model.encode_context(context), candidates)
        last_BN: NDArray[np.float64] = logits_BNK[..., -1].double().cpu().numpy()
        return last_BN

    return scores
