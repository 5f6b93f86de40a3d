import numpy as np
import pytest

from onepiece.context.batching import ContextBatch
from onepiece.training.evaluate_catalogue import headline_metrics, joined, ranked
from onepiece.training.packed import ExampleBatch


def _batch(targets: list[list[int]], seen: list[list[int]]) -> ExampleBatch:
    """Requests with targets and items met before, as rows of the vocabulary (item 0 is row 2)."""

    def padded(lists: list[list[int]]) -> np.ndarray:
        width = max(map(len, lists))
        return np.array([one + [0] * (width - len(one)) for one in lists], dtype=np.int64)

    rows, size = padded(targets), len(targets)
    empty = np.zeros((size, 0), dtype=np.int64)
    context = ContextBatch(
        item_rows=empty,
        kinds=empty,
        positions=empty,
        actions=empty,
        token_features=np.zeros((size, 0, 1), np.float32),
        profile_codes=empty,
        query_row=np.ones(size, np.int64),
        word_rows=empty,
        situation=np.zeros((size, 1), np.float32),
        candidate_rows=rows,
        candidate_features=np.zeros((*rows.shape, 1), np.float32),
    )
    stages = np.where(rows != 0, 2, 0)
    users = np.arange(size) + 10
    none = np.zeros(size, np.int64)
    return ExampleBatch(context, stages, none, users, seen_rows=padded(seen), num_missed=none)


SCORES = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.1, 0.9]], dtype=np.float32)


def test_items_met_before_compete_in_one_rank_and_not_in_the_other():
    ranks = ranked(SCORES, _batch([[4], [2]], [[2], [5]]), np.array([7, 3]), list_length=2)

    # Request 7: item 2 behind 0 (met) and 1; request 3: item 0 ties with 1, behind 3 (met).
    assert ranks.ranks_P.tolist() == [3, 3]
    assert ranks.unseen_ranks_P.tolist() == [2, 2]
    assert ranks.lists_BK.tolist() == [[1, 2], [0, 1]]
    assert ranks.num_seen_P.tolist() == [1, 1]


def test_a_target_met_before_competes_all_the_same():
    ranks = ranked(SCORES, _batch([[3], [5]], [[2, 3], [5]]), np.array([0, 1]), list_length=0)

    assert ranks.ranks_P.tolist() == [2, 1]
    assert ranks.unseen_ranks_P.tolist() == [1, 1]


def test_batches_are_joined_in_the_order_of_the_examples():
    first = ranked(SCORES, _batch([[4], [2]], [[2], [5]]), np.array([7, 3]), list_length=1)
    second = ranked(SCORES[:1], _batch([[2]], [[3]]), np.array([5]), list_length=1)

    ranks = joined([first, second])

    assert ranks.requests_P.tolist() == [3, 5, 7]
    assert ranks.users_P.tolist() == [11, 10, 10]
    assert ranks.items_P.tolist() == [0, 0, 2]


def test_the_headline_is_over_requests_and_names_what_it_excludes():
    ranks = ranked(SCORES, _batch([[4], [2]], [[2], [5]]), np.array([7, 3]), list_length=0)

    metrics = headline_metrics(ranks)

    assert metrics["recall_5"] == 1.0
    assert metrics["ndcg_10"] == pytest.approx(1 / np.log2(3))
    assert metrics["seen_ndcg_10"] == pytest.approx(1 / np.log2(4))
    assert metrics["mrr_20"] == pytest.approx(1 / 2)
