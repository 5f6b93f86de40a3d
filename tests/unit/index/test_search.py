import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onepiece.index.check import measure_recall
from onepiece.index.faiss_index import FaissIndex
from onepiece.index.recipe import IndexRecipe
from onepiece.index.search import NO_ROW, ExactIndex

FLAT = IndexRecipe(kind="flat", exact_below=0)
GRAPH = IndexRecipe(kind="hnsw", exact_below=0)
"""With `exact_below` 0 every request goes through FAISS."""


def vectors_of(seed: int, num_items: int, num_dimensions: int = 8) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((num_items, num_dimensions)).astype(np.float32)


def test_exact_search_finds_the_greatest_inner_products_by_hand():
    vectors = np.array([[1, 0], [0, 1], [2, 2], [-1, 0]], dtype=np.float32)
    queries = np.array([[1, 0], [0, -1]], dtype=np.float32)

    hits = ExactIndex(vectors).search(queries, 3, allowed=[np.array([0, 1, 3]), np.array([1])])

    assert hits.rows_BK.tolist() == [[0, 1, 3], [1, NO_ROW, NO_ROW]]
    assert hits.scores_BK.tolist() == [[1, 0, -1], [-1, -np.inf, -np.inf]]


def test_equal_scores_are_ordered_and_cut_by_row():
    vectors = np.ones((6, 2), dtype=np.float32)

    hits = ExactIndex(vectors).search(
        np.ones((1, 2), np.float32), 3, allowed=[np.array([5, 3, 4, 1])]
    )

    assert hits.rows_BK.tolist() == [[1, 3, 4]]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    num_items=st.integers(1, 60),
    num_wanted=st.integers(1, 70),
    kind=st.sampled_from(["flat", "hnsw"]),
    data=st.data(),
)
def test_faiss_finds_what_exact_search_finds(seed, num_items, num_wanted, kind, data):
    vectors, queries = vectors_of(seed, num_items), vectors_of(seed + 1, 3)
    allowed = [
        np.array(sorted(data.draw(st.sets(st.integers(0, num_items - 1)))), dtype=np.int64)
        for _ in range(3)
    ]
    recipe = IndexRecipe(kind=kind, exact_below=data.draw(st.sampled_from([0, 10, 100])))

    found = FaissIndex.from_vectors(vectors, recipe).search(queries, num_wanted, allowed=allowed)

    true = ExactIndex(vectors).search(queries, num_wanted, allowed=allowed)
    if kind == "flat":
        assert found.rows_BK.tolist() == true.rows_BK.tolist()
        np.testing.assert_allclose(found.scores_BK, true.scores_BK, rtol=1e-5, atol=1e-5)
    for rows, is_allowed in zip(found.rows_BK, allowed, strict=True):
        hits = rows[rows != NO_ROW]
        assert set(hits.tolist()) <= set(is_allowed.tolist())
        assert len(set(hits.tolist())) == len(hits)


@pytest.mark.parametrize("num_allowed", [50, 500, 3_000])
def test_the_graph_with_exact_small_sets_finds_nearly_all(num_allowed):
    vectors = vectors_of(0, 3_000, 16)
    index = FaissIndex.from_vectors(vectors, IndexRecipe(kind="hnsw", exact_below=1_000))

    recall = measure_recall(
        index, vectors, count=50, num_requests=40, num_allowed=num_allowed, seed=1
    )

    assert recall.recall >= 0.98
    assert (recall.count, recall.num_allowed) == (50, num_allowed)


def test_the_graph_alone_misses_items_of_small_sets():
    # Why `exact_below` is there at all.
    vectors = vectors_of(0, 3_000, 16)
    index = FaissIndex.from_vectors(vectors, GRAPH)

    recall = measure_recall(index, vectors, count=50, num_requests=40, num_allowed=50, seed=1)

    assert recall.recall < 0.98


@pytest.mark.parametrize("recipe", [FLAT, GRAPH], ids=["flat", "hnsw"])
def test_equal_vectors_give_equal_bytes_and_survive_them(recipe):
    vectors, queries = vectors_of(3, 200), vectors_of(4, 5)
    allowed = [np.arange(200)] * 5
    first = FaissIndex.from_vectors(vectors, recipe)

    again = FaissIndex.from_bytes(first.to_bytes(), recipe)

    assert FaissIndex.from_vectors(vectors, recipe).to_bytes() == first.to_bytes()
    assert (again.num_items, again.num_dimensions) == (200, 8)
    np.testing.assert_array_equal(
        again.search(queries, 7, allowed=allowed).rows_BK,
        first.search(queries, 7, allowed=allowed).rows_BK,
    )


def test_recall_of_exact_search_is_one():
    vectors = vectors_of(5, 300)

    recall = measure_recall(
        ExactIndex(vectors), vectors, count=1_000, num_requests=3, num_allowed=10_000, seed=0
    )

    assert recall.recall == 1.0
    assert (recall.count, recall.num_allowed) == (300, 300)
