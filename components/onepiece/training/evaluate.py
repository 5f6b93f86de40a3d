"""Measures a model on the validation pages: what it ranks well, and what retrieval would find."""

# Shape suffixes: B = requests, N = candidates, K = tasks, D = width.

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import HeadsRecipe, Model
from onepiece.training.calibration import equal_mass_error
from onepiece.training.evaluate_catalogue import catalogue_metrics, rank_catalogue
from onepiece.training.metrics import (
    area_under_curve,
    discounted_gains,
    grouped_area_under_curve,
    reciprocal_ranks,
    worst_ranks,
)
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.spine import TASK_STAGE, Stage

MRR_CUTOFF = 20
"""Items of a page (data.md)."""
RECALL_CUTOFFS = (10, 50, 100)
"""Chosen here: half a page, and what pre-rank may be given."""


FOUND_CUTOFFS = (1, 5, 20)
"""Cutoffs of data.md's table of Complete Journey."""
NEVER = np.iinfo(np.int64).max
"""Rank of an item that is not in the list."""


@dataclass(frozen=True, slots=True)
class ScoredPage:
    """One validation page with its scores; N = candidates, seen or not."""

    stages_N: NDArray[np.int64]
    user_code: int
    logits_NK: NDArray[np.float64]
    """One column a ranking task; none without a ranking head."""
    similarities_N: NDArray[np.float64]
    """Inner products of retrieval; empty without a retrieval head."""
    num_missed: int
    """Ordered items that are no candidate."""


def evaluate(model: Model, examples: Examples, *, batch_size: int = 32) -> dict[str, float]:
    """Computes every metric that the validation pages allow; one without a case is left out.

    - `auc_<task>`, `gauc_<task>`: among items seen, over all pages and by user.
    - `ece_<task>`: calibration error among all candidates, whom the loss counts as well, in bins
      of equal mass. Without binary cross-entropy in the loss, logits are no probabilities.
    - `mrr_order_seen`, `mrr_order_shelf`: of ordered items among those seen, and among the whole
      shelf, 0 beyond rank 20; an ordered item that is no candidate counts as 0 of the shelf.
    - `found_order_<k>`: share of ordered items among the first k of the shelf, those that are no
      candidate included.
    - `ndcg_order_shelf`: of the pages with an order, down to rank 20 of the whole shelf.
    - `mrr_first`: of the first target of the last ranking task, 0 beyond rank 20; of the first
      order by retrieval where nothing is ranked.
    - `recall_order_<k>`: share of ordered items among the k of the shelf that retrieval puts
      first.

    Examples whose targets are ranked among the whole catalogue have the metrics of
    `evaluate_catalogue` instead.

    Args:
        model: In evaluation mode.
        examples: Their validation rows are read.
        batch_size: Requests scored at a time.
    """
    if examples.ranks == "catalogue":
        return catalogue_metrics(rank_catalogue(model, examples), examples.vocabulary)
    pages = scored_pages(model, examples, batch_size=batch_size)
    return page_metrics(pages, model.recipe)


def page_metrics(pages: list[ScoredPage], recipe: HeadsRecipe) -> dict[str, float]:
    """Computes the metrics of `evaluate` from pages scored before."""
    metrics: dict[str, float] = {"num_validation_pages": float(len(pages))}
    for task, name in enumerate(recipe.ranking_tasks):
        metrics |= _areas(pages, task=task, name=name)
        metrics[f"ece_{name}"] = _calibration_error(pages, task=task, name=name)
    if "order" in recipe.ranking_tasks:
        task = recipe.ranking_tasks.index("order")
        metrics |= _reciprocal_ranks(pages, task=task)
        metrics["ndcg_order_shelf"] = _discounted_gain(pages, task=task)
    first_R = first_found(pages, recipe)
    metrics["mrr_first"] = _mean([first_R[~np.isnan(first_R)]])
    if recipe.retrieval_tasks:
        metrics |= _recalls(pages)
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def first_found(pages: list[ScoredPage], recipe: HeadsRecipe) -> NDArray[np.float64]:
    """Gives 1 / rank of each page's best target of the last ranking task, 0 beyond rank 20.

    Without ranking tasks it is the best order by the inner products of retrieval.

    Returns:
        (R,) in the order of the pages; NaN where a page has no target.
    """
    values_R = np.full(len(pages), np.nan)
    stage = TASK_STAGE[recipe.ranking_tasks[-1]] if recipe.ranking_tasks else Stage.ORDERED
    for place, page in enumerate(pages):
        scores_N = page.logits_NK[:, -1] if recipe.ranking_tasks else page.similarities_N
        ranks_P = worst_ranks(scores_N, page.stages_N >= stage)
        if len(ranks_P):
            best = ranks_P.min()
            values_R[place] = 1.0 / best if best <= MRR_CUTOFF else 0.0
    return values_R


def shelf_metrics(ranks_P: NDArray[np.int64]) -> dict[str, float]:
    """Computes `mrr_order_shelf` and `found_order_<k>` from the ranks of all ordered items, (P,).

    An item counts as much as any other, however many were ordered with it; `NEVER` is the rank
    of one that is no candidate. NaN without items.
    """
    reciprocal_P = np.where(ranks_P <= MRR_CUTOFF, 1.0 / ranks_P, 0.0)
    found = {f"found_order_{k}": _mean([(ranks_P <= k).astype(float)]) for k in FOUND_CUTOFFS}
    return {"mrr_order_shelf": _mean([reciprocal_P]), **found}


def scored_pages(model: Model, examples: Examples, *, batch_size: int = 32) -> list[ScoredPage]:
    """Scores the candidates of all validation pages, in the order of the examples.

    That order is one for all contexts, so that models which read unlike ones compare page by page.
    """
    rows = examples.rows(is_validation=True)
    # Pages of like length together: less padding, and no score depends on it.
    order = np.argsort(examples.sizes(rows), kind="stable")
    pages: list[ScoredPage] = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            chosen = rows[order[start : start + batch_size]]
            pages += _scored_batch(model, examples.batch(chosen))
    return [pages[place] for place in np.argsort(order).tolist()]


def _scored_batch(model: Model, batch: ExampleBatch) -> list[ScoredPage]:
    encoding = model.encode_context(context_tensors(batch.context, device=model.device))
    rows_BN = batch.context.candidate_rows
    logits_BNK = np.zeros((*rows_BN.shape, 0))
    if model.recipe.ranking_tasks:
        candidates = candidate_tensors(
            batch.context,
            group_size=model.recipe.group_size,
            seeds_B=batch.seeds,
            device=model.device,
        )
        logits_BNK = model.score_candidates(encoding, candidates).double().cpu().numpy()
    similarities_BN = np.zeros((len(rows_BN), 0))
    if model.recipe.retrieval_tasks:
        users_BD = model.user_vectors(encoding)[:, -1]
        items_BND = model.item_vectors(torch.from_numpy(rows_BN).to(model.device))
        similarities_BN = (items_BND @ users_BD[..., None]).squeeze(-1).double().cpu().numpy()
    counts_B = batch.context.candidate_mask.sum(1)
    return [
        ScoredPage(
            stages_N=batch.stages[place, :count],
            user_code=int(batch.user_codes[place]),
            logits_NK=logits_BNK[place, :count],
            similarities_N=similarities_BN[place, :count],
            num_missed=int(batch.num_missed[place]),
        )
        for place, count in enumerate(counts_B)
    ]


def _areas(pages: list[ScoredPage], *, task: int, name: str) -> dict[str, float]:
    scores: list[NDArray[np.float64]] = []
    positive: list[NDArray[np.bool_]] = []
    users: list[NDArray[np.int64]] = []
    for page in pages:
        is_seen_N = page.stages_N >= Stage.SEEN
        scores.append(page.logits_NK[is_seen_N, task])
        positive.append(page.stages_N[is_seen_N] >= TASK_STAGE[name])
        users.append(np.full(is_seen_N.sum(), page.user_code))
    if not pages:
        return {}
    scores_N, positive_N = np.concatenate(scores), np.concatenate(positive)
    users_N = np.concatenate(users)
    return {
        f"auc_{name}": area_under_curve(scores_N, positive_N),
        f"gauc_{name}": grouped_area_under_curve(scores_N, positive_N, users_N),
    }


def _reciprocal_ranks(pages: list[ScoredPage], *, task: int) -> dict[str, float]:
    seen, ranks = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for page in pages:
        is_seen_N, is_ordered_N = page.stages_N >= Stage.SEEN, page.stages_N == Stage.ORDERED
        scores_N = page.logits_NK[:, task]
        among_seen = reciprocal_ranks(
            scores_N[is_seen_N], is_ordered_N[is_seen_N], cutoff=MRR_CUTOFF
        )
        seen.append(among_seen)
        ranks.append(worst_ranks(scores_N, is_ordered_N))
        ranks.append(np.full(page.num_missed, NEVER))
    return {"mrr_order_seen": _mean(seen), **shelf_metrics(np.concatenate(ranks))}


def _calibration_error(pages: list[ScoredPage], *, task: int, name: str) -> float:
    logits_N = np.concatenate([np.zeros(0), *(page.logits_NK[:, task] for page in pages)])
    stages_N = np.concatenate([np.zeros(0), *(page.stages_N for page in pages)])
    # The logistic function; this form cannot overflow.
    probabilities_N = np.exp(-np.logaddexp(0.0, -logits_N))
    return equal_mass_error(probabilities_N, stages_N >= TASK_STAGE[name])


def _discounted_gain(pages: list[ScoredPage], *, task: int) -> float:
    gains = [np.zeros(0)]
    for page in pages:
        ranks_P = worst_ranks(page.logits_NK[:, task], page.stages_N == Stage.ORDERED)
        same_page_P = np.zeros(len(ranks_P), dtype=np.int64)
        gains.append(discounted_gains(ranks_P, same_page_P, cutoff=MRR_CUTOFF))
    return _mean(gains)


def _recalls(pages: list[ScoredPage]) -> dict[str, float]:
    ranks = [np.zeros(0, dtype=np.int64)]
    ranks += [worst_ranks(p.similarities_N, p.stages_N == Stage.ORDERED) for p in pages]
    return {
        f"recall_order_{k}": _mean([(r <= k).astype(float) for r in ranks]) for k in RECALL_CUTOFFS
    }


def _mean(parts: list[NDArray[np.float64]]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if len(values) else float("nan")
