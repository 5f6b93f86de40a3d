"""The one value a request by which models are compared, beside all metrics."""

# Shape suffixes: R = requests, P = targets.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.models.protocols import Model
from onepiece.training.evaluate import first_found, page_metrics, scored_pages
from onepiece.training.evaluate_catalogue import (
    CatalogueRanks,
    catalogue_metrics,
    rank_catalogue,
)
from onepiece.training.metrics import discounted_gains
from onepiece.training.packed import Examples


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
    reciprocal rank of the first target of the last ranking task among the candidates, or of the
    first order by retrieval where nothing is ranked.
    """
    if examples.ranks == "catalogue":
        return measured_ranks(rank_catalogue(model, examples), examples)
    pages = scored_pages(model, examples)
    values_R = first_found(pages, model.recipe)
    users_R = np.array([page.user_code for page in pages], dtype=np.int64)
    has_target_R = ~np.isnan(values_R)
    return Measured(
        metrics=page_metrics(pages, model.recipe),
        headline="mrr_first",
        values_R=values_R[has_target_R],
        users_R=users_R[has_target_R],
    )


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
