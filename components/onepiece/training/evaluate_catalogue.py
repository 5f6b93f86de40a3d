"""Measures a model on the whole catalogue: every item competes for every target, none is drawn."""

# Shape suffixes: B = requests, P = targets, D = width, V = items, K = length of a list.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.context.vocabulary import FIRST_ROW, Vocabulary
from onepiece.models.inputs import context_tensors
from onepiece.models.protocols import Model
from onepiece.models.recall import item_scores
from onepiece.training.diversity import (
    coverage,
    gini,
    listed_counts,
    long_tail_shares,
    novelties,
)
from onepiece.training.full_ranking import target_ranks, top_items
from onepiece.training.metrics import discounted_gains, first_reciprocal_ranks, recalls
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.slices import slice_means
from onepiece.training.spine import Stage

CUTOFFS = (5, 10, 20)
"""Lengths of the lists that are judged (data.md: 5 and 10 are published)."""
LIST_LENGTH = 10
"""Items of the lists whose width and novelty are measured."""
ITEM_EDGES = (0, 5, 10, 20, 50)
"""Training interactions of a target, by which the cold-start slices are cut; chosen here."""
USER_EDGES = (0, 5, 10, 20, 50)
"""Items that a user met before, by which the slices of users are cut; chosen here."""


@dataclass(frozen=True, slots=True)
class CatalogueRanks:
    """Where each target came, and what was listed."""

    ranks_P: NDArray[np.int64]
    """(P,) rank among all items."""
    unseen_ranks_P: NDArray[np.int64]
    """(P,) rank among the items that the user had not met, the target always among them."""
    requests_P: NDArray[np.int64]
    """(P,) row of the example, ascending."""
    items_P: NDArray[np.int64]
    """(P,) place of the target in the catalogue."""
    num_seen_P: NDArray[np.int64]
    """(P,) distinct items that the user had met."""
    users_P: NDArray[np.int64]
    """(P,) code of the user."""
    lists_BK: NDArray[np.int64]
    """(B, K) best items that the user had not met; no column if they were not asked for."""


def rank_catalogue(
    model: Model, examples: Examples, *, batch_size: int = 256, list_length: int = LIST_LENGTH
) -> CatalogueRanks:
    """Ranks the targets of all validation examples by the model's last user vector.

    A target is a candidate that was at least clicked. Equal scores count against the model.

    Args:
        model: In evaluation mode, with user vectors.
        examples: Their validation rows are read.
        batch_size: Requests scored at a time.
        list_length: K; 0 makes no lists, which saves half of the time.
    """
    rows = examples.rows(is_validation=True)
    # Requests of like length together: less padding, and no score depends on it.
    rows = rows[np.argsort(examples.sizes(rows), kind="stable")]
    parts = []
    with torch.inference_mode():
        rows_V = torch.arange(FIRST_ROW, examples.vocabulary.num_items, device=model.device)
        items_VD = model.item_vectors(rows_V)
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            batch = examples.batch(chosen)
            users = model.users(
                model.encode_context(context_tensors(batch.context, device=model.device))
            )
            scores_BV = item_scores(users.last(), rows_V, items_VD)[:, 0].cpu().numpy()
            parts.append(ranked(scores_BV, batch, chosen, list_length=list_length))
    return joined(parts)


def ranked(
    scores_BV: NDArray[np.float32],
    batch: ExampleBatch,
    rows_B: NDArray[np.int64],
    *,
    list_length: int,
) -> CatalogueRanks:
    """Ranks the targets of one batch by given scores of all items.

    Args:
        scores_BV: (B, V) scores of the vocabulary's items, padding and unknown left out.
        batch: The examples.
        rows_B: (B,) their rows.
        list_length: K.
    """
    request_P, column_P = np.nonzero(batch.stages >= Stage.CLICKED)
    items_P = batch.context.candidate_rows[request_P, column_P] - FIRST_ROW
    is_seen_BV = np.zeros((len(scores_BV), scores_BV.shape[1] + FIRST_ROW), dtype=np.bool_)
    np.put_along_axis(is_seen_BV, batch.seen_rows, True, axis=1)
    is_seen_BV = is_seen_BV[:, FIRST_ROW:]
    # A target met before competes all the same: it is what was taken.
    is_seen_BV[request_P, items_P] = False
    return CatalogueRanks(
        ranks_P=target_ranks(scores_BV, request_P, items_P=items_P),
        unseen_ranks_P=target_ranks(scores_BV, request_P, items_P=items_P, excluded_BV=is_seen_BV),
        requests_P=rows_B[request_P],
        items_P=items_P,
        num_seen_P=(batch.seen_rows != 0).sum(1)[request_P],
        users_P=batch.user_codes[request_P],
        lists_BK=top_items(scores_BV, cutoff=list_length, excluded_BV=is_seen_BV)
        if list_length
        else np.zeros((len(scores_BV), 0), dtype=np.int64),
    )


def joined(parts: Sequence[CatalogueRanks]) -> CatalogueRanks:
    """Joins batches, targets in ascending order of their example, so that models compare."""
    requests_P = np.concatenate([part.requests_P for part in parts])
    order_P = np.argsort(requests_P, kind="stable")

    def column(name: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = np.concatenate([getattr(part, name) for part in parts])
        return values[order_P]

    return CatalogueRanks(
        ranks_P=column("ranks_P"),
        unseen_ranks_P=column("unseen_ranks_P"),
        requests_P=requests_P[order_P],
        items_P=column("items_P"),
        num_seen_P=column("num_seen_P"),
        users_P=column("users_P"),
        lists_BK=np.concatenate([part.lists_BK for part in parts]),
    )


def headline_metrics(ranks: CatalogueRanks) -> dict[str, float]:
    """Gives recall, NDCG and MRR; names that begin with `seen_` let items met before compete."""
    metrics: dict[str, float] = {}
    for prefix, ranks_P in (("", ranks.unseen_ranks_P), ("seen_", ranks.ranks_P)):
        for cutoff in CUTOFFS:
            recall_R = recalls(ranks_P, ranks.requests_P, cutoff=cutoff)
            gain_R = discounted_gains(ranks_P, ranks.requests_P, cutoff=cutoff)
            metrics[f"{prefix}recall_{cutoff}"] = _mean(recall_R)
            metrics[f"{prefix}ndcg_{cutoff}"] = _mean(gain_R)
        first_R = first_reciprocal_ranks(ranks_P, ranks.requests_P, cutoff=CUTOFFS[-1])
        metrics[f"{prefix}mrr_{CUTOFFS[-1]}"] = _mean(first_R)
    return metrics


def catalogue_metrics(ranks: CatalogueRanks, vocabulary: Vocabulary) -> dict[str, float]:
    """Gives the headline, what the lists are like, and NDCG@10 by what is known of item and user.

    Slices without a target are left out.
    """
    counts_V = vocabulary.order_counts[FIRST_ROW:]
    metrics = headline_metrics(ranks)
    metrics["num_targets"] = float(len(ranks.ranks_P))
    if ranks.lists_BK.shape[1]:
        listed_V = listed_counts(ranks.lists_BK, num_items=len(counts_V))
        metrics["coverage_10"] = coverage(listed_V)
        metrics["gini_10"] = gini(listed_V)
        metrics["novelty_bits_10"] = _mean(novelties(ranks.lists_BK, counts_V))
        metrics["long_tail_10"] = _mean(long_tail_shares(ranks.lists_BK, counts_V))
    gains_P = np.where(ranks.unseen_ranks_P <= 10, 1 / np.log2(1.0 + ranks.unseen_ranks_P), 0.0)
    for name, counts_P, edges in (
        ("item", counts_V[ranks.items_P], ITEM_EDGES),
        ("user", ranks.num_seen_P, USER_EDGES),
    ):
        for piece in slice_means(gains_P, counts_P, edges=edges):
            if piece.mean is not None:
                end = "up" if piece.below is None else f"{piece.below - 1}"
                metrics[f"ndcg_10_{name}_{piece.at_least}_{end}"] = piece.mean
    return metrics


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if len(values) else float("nan")
