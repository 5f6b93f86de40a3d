"""The one value a request by which models are compared, beside all metrics."""

# Shape suffixes: R = requests, P = targets.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.models.protocols import Model
from onepiece.training.evaluate import MRR_CUTOFF, page_metrics, scored_pages
from onepiece.training.evaluate_catalogue import (
    CatalogueRanks,
    catalogue_metrics,
    rank_catalogue,
)
from onepiece.training.metrics import discounted_gains, first_reciprocal_ranks, worst_ranks
from onepiece.training.packed import Examples
from onepiece.training.spine import TASK_STAGE


@dataclass(frozen=True, slots=True)
class Measured:
    """A model, or a floor, on a test."""

    metrics: dict[str, float]
    """Every metric."""
    headline: str
    """Name of the metric whose mean `values_R` has."""
    values_R: NDArray[np.float64]
    """(R,) its value of each request, in one order for every model."""
    users_R: NDArray[np.int64]
    """(R,) code of each request's user."""


def measure(model: Model, examples: Examples) -> Measured:
    """Measures a model on the validation rows, all of them where the folder is a test.

    The headline is NDCG@10 among the items not met before where the catalogue is ranked; else the
    reciprocal rank of the first target of the last ranking task among the candidates.
    """
    if examples.ranks == "catalogue":
        return measured_ranks(rank_catalogue(model, examples), examples)
    pages = scored_pages(model, examples)
    metrics = page_metrics(pages, model.recipe)
    task = len(model.recipe.ranking_tasks) - 1
    stage = TASK_STAGE[model.recipe.ranking_tasks[task]]
    values, users = [], []
    for page in pages:
        ranks_P = worst_ranks(page.logits_NK[:, task], page.stages_N >= stage)
        if len(ranks_P):
            same_P = np.zeros(len(ranks_P), dtype=np.int64)
            values.append(first_reciprocal_ranks(ranks_P, same_P, cutoff=MRR_CUTOFF)[0])
            users.append(page.user_code)
    name = f"mrr_{model.recipe.ranking_tasks[task]}_first"
    values_R = np.array(values, dtype=np.float64)
    metrics[name] = float(values_R.mean())
    return Measured(metrics, name, values_R, np.array(users, dtype=np.int64))


def measured_ranks(ranks: CatalogueRanks, examples: Examples) -> Measured:
    """Turns ranks among the catalogue into metrics and NDCG@10 of each request."""
    values_R = discounted_gains(ranks.unseen_ranks_P, ranks.requests_P, cutoff=10)
    _, first_R = np.unique(ranks.requests_P, return_index=True)
    return Measured(
        metrics=catalogue_metrics(ranks, examples.vocabulary),
        headline="ndcg_10",
        values_R=values_R,
        users_R=ranks.users_P[first_R],
    )
