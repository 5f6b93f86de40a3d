"""Measures a model on the validation pages: what it ranks well, and what retrieval would find."""

# Shape suffixes: B = requests, N = candidates, K = tasks, D = width.

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import Model
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


@dataclass(frozen=True, slots=True)
class _Page:
    """One validation page with its scores; N = candidates, seen or not."""

    stages_N: NDArray[np.int64]
    user_code: int
    logits_NK: NDArray[np.float64]
    """One column a ranking task; none without a ranking head."""
    similarities_N: NDArray[np.float64]
    """Inner products of retrieval; empty without a retrieval head."""


def evaluate(model: Model, examples: Examples, *, batch_size: int = 32) -> dict[str, float]:
    """Computes every metric that the validation pages allow; one without a case is left out.

    - `auc_<task>`, `gauc_<task>`: among items seen, over all pages and by user.
    - `ece_<task>`: calibration error among all candidates, whom the loss counts as well, in bins
      of equal mass. Without binary cross-entropy in the loss, logits are no probabilities.
    - `mrr_order_seen`, `mrr_order_shelf`: of ordered items among those seen, and among the whole
      shelf, 0 beyond rank 20.
    - `ndcg_order_shelf`: of the pages with an order, down to rank 20 of the whole shelf.
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
    pages = _scored(model, examples, batch_size=batch_size)
    metrics: dict[str, float] = {"num_validation_pages": float(len(pages))}
    for task, name in enumerate(model.recipe.ranking_tasks):
        metrics |= _areas(pages, task=task, name=name)
        metrics[f"ece_{name}"] = _calibration_error(pages, task=task, name=name)
    if "order" in model.recipe.ranking_tasks:
        task = model.recipe.ranking_tasks.index("order")
        metrics |= _reciprocal_ranks(pages, task=task)
        metrics["ndcg_order_shelf"] = _discounted_gain(pages, task=task)
    if model.recipe.retrieval_tasks:
        metrics |= _recalls(pages)
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def _scored(model: Model, examples: Examples, *, batch_size: int) -> list[_Page]:
    rows = examples.rows(is_validation=True)
    # Pages of like length together: less padding, and no score depends on it.
    rows = rows[np.argsort(examples.sizes(rows), kind="stable")]
    pages: list[_Page] = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            pages += _scored_batch(model, examples.batch(rows[start : start + batch_size]))
    return pages


def _scored_batch(model: Model, batch: ExampleBatch) -> list[_Page]:
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
        _Page(
            stages_N=batch.stages[place, :count],
            user_code=int(batch.user_codes[place]),
            logits_NK=logits_BNK[place, :count],
            similarities_N=similarities_BN[place, :count],
        )
        for place, count in enumerate(counts_B)
    ]


def _areas(pages: list[_Page], *, task: int, name: str) -> dict[str, float]:
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


def _reciprocal_ranks(pages: list[_Page], *, task: int) -> dict[str, float]:
    seen, shelf = [np.zeros(0)], [np.zeros(0)]
    for page in pages:
        is_seen_N, is_ordered_N = page.stages_N >= Stage.SEEN, page.stages_N == Stage.ORDERED
        scores_N = page.logits_NK[:, task]
        among_seen = reciprocal_ranks(
            scores_N[is_seen_N], is_ordered_N[is_seen_N], cutoff=MRR_CUTOFF
        )
        seen.append(among_seen)
        shelf.append(reciprocal_ranks(scores_N, is_ordered_N, cutoff=MRR_CUTOFF))
    return {"mrr_order_seen": _mean(seen), "mrr_order_shelf": _mean(shelf)}


def _calibration_error(pages: list[_Page], *, task: int, name: str) -> float:
    logits_N = np.concatenate([np.zeros(0), *(page.logits_NK[:, task] for page in pages)])
    stages_N = np.concatenate([np.zeros(0), *(page.stages_N for page in pages)])
    # The logistic function; this form cannot overflow.
    probabilities_N = np.exp(-np.logaddexp(0.0, -logits_N))
    return equal_mass_error(probabilities_N, stages_N >= TASK_STAGE[name])


def _discounted_gain(pages: list[_Page], *, task: int) -> float:
    gains = [np.zeros(0)]
    for page in pages:
        ranks_P = worst_ranks(page.logits_NK[:, task], page.stages_N == Stage.ORDERED)
        same_page_P = np.zeros(len(ranks_P), dtype=np.int64)
        gains.append(discounted_gains(ranks_P, same_page_P, cutoff=MRR_CUTOFF))
    return _mean(gains)


def _recalls(pages: list[_Page]) -> dict[str, float]:
    ranks = [np.zeros(0, dtype=np.int64)]
    ranks += [worst_ranks(p.similarities_N, p.stages_N == Stage.ORDERED) for p in pages]
    return {
        f"recall_order_{k}": _mean([(r <= k).astype(float) for r in ranks]) for k in RECALL_CUTOFFS
    }


def _mean(parts: list[NDArray[np.float64]]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if len(values) else float("nan")
