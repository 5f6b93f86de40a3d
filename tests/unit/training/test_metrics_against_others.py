"""Our metrics against scikit-learn's, SciPy's and TorchMetrics', on random data full of ties.

Ties count against the model here; elsewhere a sort decides them. `_adverse` therefore breaks ties
against the model before it asks others. It cannot say that two positives which tie both come
last, so there positives tie with negatives only; the last test covers ties among positives.
"""

# Shape suffixes: N = candidates, P = positives, R = requests, B = requests, V = items.

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import entropy, rankdata
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    coverage_error,
    label_ranking_average_precision_score,
    ndcg_score,
    roc_auc_score,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import binary_calibration_error
from torchmetrics.retrieval import (
    RetrievalHitRate,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalRecall,
)

from onepiece.models.recipe import OnePieceRecipe
from onepiece.training.calibration import equal_mass_error, equal_width_error
from onepiece.training.diversity import coverage, gini, listed_counts, novelties, self_information
from onepiece.training.evaluate import ScoredPage, page_metrics
from onepiece.training.evaluate_catalogue import CatalogueRanks, headline_metrics
from onepiece.training.full_ranking import target_ranks, top_items
from onepiece.training.metrics import (
    area_under_curve,
    discounted_gains,
    first_reciprocal_ranks,
    grouped_area_under_curve,
    hit_rates,
    recalls,
    reciprocal_ranks,
    worst_ranks,
)
from onepiece.training.request_values import measured_ranks
from onepiece.training.spine import Stage

seeds = pytest.mark.parametrize("seed", range(8))
CUTOFFS = (1, 5, 20, 100)
THEIRS = {
    "hits": RetrievalHitRate,
    "recall": RetrievalRecall,
    "ndcg": RetrievalNormalizedDCG,
    "mrr": RetrievalMRR,
}


def _request(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Draws scores with many ties, none of them between two positives."""
    num_candidates = int(random.integers(2, 60))
    num_positives = int(random.integers(1, min(6, num_candidates)))
    levels = random.permutation(12)
    scores_N = levels[random.integers(0, 12, num_candidates)].astype(float)
    positive_N = np.zeros(num_candidates, dtype=bool)
    places_P = random.choice(num_candidates, num_positives, replace=False)
    positive_N[places_P] = True
    scores_N[places_P] = levels[:num_positives]
    return scores_N, positive_N


def _adverse(scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Gives other scores, all distinct, in the same order; among equals a positive is last."""
    order_N = np.lexsort((positive_N, -scores_N))
    distinct_N = np.empty(len(scores_N))
    distinct_N[order_N] = np.arange(len(scores_N), 0, -1)
    return distinct_N


def _theirs(
    name: str, requests: list[tuple[NDArray[np.float64], NDArray[np.bool_]]], *, cutoff: int
) -> float:
    """Asks TorchMetrics for the mean over requests."""
    scores = np.concatenate([_adverse(*request) for request in requests])
    positive = np.concatenate([positive_N for _, positive_N in requests])
    codes = np.repeat(np.arange(len(requests)), [len(scores_N) for scores_N, _ in requests])
    metric = THEIRS[name](top_k=cutoff)
    value = metric(
        torch.from_numpy(scores), torch.from_numpy(positive), indexes=torch.from_numpy(codes)
    )
    return float(value)


@seeds
def test_auc_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores_N = random.integers(0, 9, 80) / 7
    positive_N = random.random(80) < 0.3

    assert area_under_curve(scores_N, positive_N) == pytest.approx(
        roc_auc_score(positive_N, scores_N)
    )


@seeds
def test_gauc_is_the_mean_of_their_auc_weighted_by_size(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores_N, groups_N = random.integers(0, 9, 300) / 7, random.integers(0, 40, 300)
    positive_N = random.random(300) < 0.2
    groups = [groups_N == group for group in np.unique(groups_N)]
    both = [one for one in groups if 0 < positive_N[one].sum() < one.sum()]
    assert len(both) < len(groups)

    area = grouped_area_under_curve(scores_N, positive_N, groups_N)

    theirs = [roc_auc_score(positive_N[one], scores_N[one]) for one in both]
    assert area == pytest.approx(np.average(theirs, weights=[one.sum() for one in both]))


@seeds
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_hits_recall_ndcg_and_mrr_are_those_of_torchmetrics(seed: int, cutoff: int) -> None:
    random = np.random.default_rng(seed)
    requests = [_request(random) for _ in range(30)]
    ranks = [worst_ranks(*request) for request in requests]
    ranks_P = np.concatenate(ranks)
    requests_P = np.repeat(np.arange(len(ranks)), [len(one) for one in ranks])

    ours = {
        "hits": hit_rates(ranks_P, requests_P, cutoff=cutoff),
        "recall": recalls(ranks_P, requests_P, cutoff=cutoff),
        "ndcg": discounted_gains(ranks_P, requests_P, cutoff=cutoff),
        "mrr": first_reciprocal_ranks(ranks_P, requests_P, cutoff=cutoff),
    }

    for name, values_R in ours.items():
        theirs = _theirs(name, requests, cutoff=cutoff)
        assert values_R.mean() == pytest.approx(theirs, rel=1e-5), name


@seeds
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_ndcg_is_that_of_scikit_learn(seed: int, cutoff: int) -> None:
    scores_N, positive_N = _request(np.random.default_rng(seed))
    ranks_P = worst_ranks(scores_N, positive_N)

    gains_R = discounted_gains(ranks_P, np.zeros_like(ranks_P), cutoff=cutoff)

    theirs = ndcg_score(positive_N[None], _adverse(scores_N, positive_N)[None], k=cutoff)
    assert gains_R[0] == pytest.approx(theirs)


@seeds
def test_ranks_with_ties_are_those_of_scikit_learn_and_scipy(seed: int) -> None:
    # Both rank a tie as we do, at its end; here positives tie with one another as well.
    random = np.random.default_rng(seed)
    scores_N = random.integers(0, 6, 40).astype(float)
    positive_N = random.random(40) < 0.2
    positive_N[0] = True

    ranks_P = worst_ranks(scores_N, positive_N)

    assert ranks_P.tolist() == rankdata(-scores_N, method="max")[positive_N].tolist()
    assert ranks_P.max() == coverage_error(positive_N[None], scores_N[None])


@seeds
def test_the_reciprocal_rank_of_one_positive_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores_N = random.integers(0, 6, 40).astype(float)
    positive_N = np.arange(40) == random.integers(40)

    found_P = reciprocal_ranks(scores_N, positive_N, cutoff=40)

    theirs = label_ranking_average_precision_score(positive_N[None], scores_N[None])
    assert found_P.tolist() == pytest.approx([theirs])


@seeds
def test_full_ranking_counts_what_others_sort(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores_BV = random.integers(0, 30, (20, 90)).astype(np.float32)
    excluded_BV = random.random((20, 90)) < 0.3
    rows_P, items_P = np.repeat(np.arange(20), 2), random.integers(0, 90, 40)
    excluded_BV[rows_P, items_P] = False
    competing_BV = np.where(excluded_BV, -np.inf, scores_BV)

    ranks_P = target_ranks(scores_BV, rows_P, items_P=items_P, excluded_BV=excluded_BV)
    lists_BK = top_items(scores_BV, cutoff=10, excluded_BV=excluded_BV)

    theirs_BV = rankdata(-competing_BV, method="max", axis=1)
    assert np.array_equal(ranks_P, theirs_BV[rows_P, items_P])
    # Ordinal ranks number equal scores by their column, as our lists do.
    ordinal_BV = rankdata(-competing_BV, method="ordinal", axis=1)
    assert np.array_equal(lists_BK, np.argsort(ordinal_BV, axis=1)[:, :10])


@seeds
def test_the_hit_rate_of_full_ranking_is_their_top_k_accuracy(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores_BV, items_B = random.random((50, 30)), random.integers(0, 30, 50)

    ranks_B = target_ranks(scores_BV, np.arange(50), items_P=items_B)

    hits = hit_rates(ranks_B, np.arange(50), cutoff=7)
    theirs = top_k_accuracy_score(items_B, scores_BV, k=7, labels=np.arange(30))
    assert hits.mean() == pytest.approx(theirs)


@seeds
def test_calibration_in_bins_of_equal_width_is_that_of_torchmetrics(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities_N = random.beta(1, 3, 500)
    positive_N = random.random(500) < probabilities_N**1.5

    error = equal_width_error(probabilities_N, positive_N)

    tensors = torch.from_numpy(probabilities_N), torch.from_numpy(positive_N).long()
    theirs = binary_calibration_error(*tensors, n_bins=15, norm="l1")
    assert error == pytest.approx(float(theirs), rel=1e-4)


@seeds
@pytest.mark.parametrize(
    ("ours", "strategy"), [(equal_width_error, "uniform"), (equal_mass_error, "quantile")]
)
def test_calibration_is_the_gap_of_their_curve(seed: int, ours, strategy: str) -> None:
    random = np.random.default_rng(seed)
    probabilities_N = random.beta(1, 3, 600)
    positive_N = random.random(600) < probabilities_N**1.5

    error = ours(probabilities_N, positive_N, num_bins=12)

    true, said = calibration_curve(positive_N, probabilities_N, n_bins=12, strategy=strategy)
    edges = np.linspace(0, 1, 13)
    if strategy == "quantile":
        edges = np.quantile(probabilities_N, edges)
    counts, _ = np.histogram(probabilities_N, bins=edges)
    assert error == pytest.approx(np.average(np.abs(true - said), weights=counts[counts > 0]))


@seeds
def test_gini_is_half_the_mean_difference_over_the_mean(seed: int) -> None:
    random = np.random.default_rng(seed)
    lists_BK = random.integers(0, 25, (30, 10)) * random.integers(0, 2, (30, 10))

    counts_V = listed_counts(lists_BK, num_items=40)

    # Gini's own definition: over all pairs of different items, without a sort.
    gaps = np.abs(counts_V[:, None] - counts_V[None, :]).sum() / (40 * 39)
    assert gini(counts_V) == pytest.approx(gaps / (2 * counts_V.mean()))
    assert coverage(counts_V) == len(np.unique(lists_BK)) / 40


@seeds
def test_the_novelty_of_what_is_bought_is_its_entropy(seed: int) -> None:
    random = np.random.default_rng(seed)
    interactions_V = random.integers(0, 30, 12)
    bought = np.repeat(np.arange(12), interactions_V + 1)[None]

    assert self_information(interactions_V) @ (interactions_V + 1) == pytest.approx(
        entropy(interactions_V + 1, base=2) * bought.size
    )
    assert novelties(bought, interactions_V)[0] == pytest.approx(
        entropy(interactions_V + 1, base=2)
    )


def _ranks_of(requests: list[tuple[NDArray[np.float64], NDArray[np.bool_]]]) -> CatalogueRanks:
    """Ranks each request's targets; everything but the ranks is empty or zero."""
    ranks = [
        target_ranks(s[None], np.zeros(p.sum(), dtype=int), items_P=p.nonzero()[0])
        for s, p in requests
    ]
    requests_P = np.repeat(np.arange(len(ranks)), [len(one) for one in ranks])
    nothing_P = np.zeros(len(requests_P), dtype=np.int64)
    return CatalogueRanks(
        ranks_P=np.concatenate(ranks),
        unseen_ranks_P=np.concatenate(ranks),
        requests_P=requests_P,
        items_P=nothing_P,
        num_seen_P=nothing_P,
        users_P=nothing_P,
        lists_BK=np.zeros((0, 0), dtype=np.int64),
    )


@seeds
def test_the_headline_of_an_evaluation_is_that_of_torchmetrics(seed: int) -> None:
    random = np.random.default_rng(seed)
    requests = [_request(random) for _ in range(25)]

    metrics = headline_metrics(_ranks_of(requests))

    for prefix in ("", "seen_"):
        for cutoff in (5, 10, 20):
            for ours, name in (("recall", "recall"), ("ndcg", "ndcg")):
                theirs = _theirs(name, requests, cutoff=cutoff)
                assert metrics[f"{prefix}{ours}_{cutoff}"] == pytest.approx(theirs, rel=1e-5)
        assert metrics[f"{prefix}mrr_20"] == pytest.approx(
            _theirs("mrr", requests, cutoff=20), rel=1e-5
        )


@seeds
def test_the_values_that_models_are_compared_by_are_those_of_scikit_learn(
    seed: int, examples
) -> None:
    random = np.random.default_rng(seed)
    requests = [_request(random) for _ in range(25)]

    measured = measured_ranks(_ranks_of(requests), examples)

    assert measured.headline == "ndcg_10"
    theirs = [ndcg_score(p[None], _adverse(s, p)[None], k=10) for s, p in requests]
    assert measured.values_R.tolist() == pytest.approx(theirs)


@seeds
def test_the_metrics_of_pages_are_those_of_scikit_learn_and_torchmetrics(seed: int) -> None:
    random = np.random.default_rng(seed)
    pages = [_page(random) for _ in range(30)]
    recipe = OnePieceRecipe(ranking_tasks=("click", "order"), retrieval_tasks=())

    metrics = page_metrics(pages, recipe)

    for task, stage in ((0, Stage.CLICKED), (1, Stage.ORDERED)):
        name = ("click", "order")[task]
        seen = [page.stages_N >= Stage.SEEN for page in pages]
        scores = [p.logits_NK[s, task] for p, s in zip(pages, seen, strict=True)]
        positive = [p.stages_N[s] >= stage for p, s in zip(pages, seen, strict=True)]
        theirs = roc_auc_score(np.concatenate(positive), np.concatenate(scores))
        assert metrics[f"auc_{name}"] == pytest.approx(theirs)
        by_user = _by_user(pages, scores, positive)
        areas = [roc_auc_score(p, s) for s, p in by_user]
        sizes = [len(s) for s, _ in by_user]
        assert metrics[f"gauc_{name}"] == pytest.approx(np.average(areas, weights=sizes))
    ordered = [(p.logits_NK[:, 1], p.stages_N == Stage.ORDERED) for p in pages]
    ordered = [(s, p) for s, p in ordered if p.any()]
    assert metrics["ndcg_order_shelf"] == pytest.approx(
        np.mean([ndcg_score(p[None], _adverse(s, p)[None], k=20) for s, p in ordered])
    )
    assert metrics["mrr_first"] == pytest.approx(_theirs("mrr", ordered, cutoff=20), rel=1e-5)


def _page(random: np.random.Generator) -> ScoredPage:
    """Draws a page of which some was not seen, some was clicked and some was ordered."""
    scores_N, positive_N = _request(random)
    stages_N = random.integers(Stage.UNSEEN, Stage.CLICKED + 1, len(scores_N))
    stages_N[positive_N] = Stage.ORDERED
    clicks_N = random.integers(0, 5, len(scores_N)).astype(float)
    return ScoredPage(
        stages_N=stages_N,
        user_code=int(random.integers(6)),
        logits_NK=np.stack([clicks_N, scores_N], axis=1),
        similarities_N=np.zeros(0),
        num_missed=0,
    )


def _by_user(
    pages: list[ScoredPage], scores: list[NDArray[np.float64]], positive: list[NDArray[np.bool_]]
) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Joins the pages of each user, and keeps users who have both kinds."""
    users = np.array([page.user_code for page in pages])
    joined = [
        tuple(
            np.concatenate([part[place] for place in np.flatnonzero(users == user)])
            for part in (scores, positive)
        )
        for user in np.unique(users)
    ]
    return [(s, p) for s, p in joined if 0 < p.sum() < len(p)]


@seeds
def test_positives_that_tie_are_never_worth_more_than_elsewhere(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores_N = random.integers(0, 4, 40).astype(float)
    positive_N = random.random(40) < 0.3
    positive_N[0] = True
    ranks_P = worst_ranks(scores_N, positive_N)

    gains_R = discounted_gains(ranks_P, np.zeros_like(ranks_P), cutoff=40)

    theirs = ndcg_score(positive_N[None], _adverse(scores_N, positive_N)[None], k=40)
    assert gains_R[0] < theirs
