import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepiece.training.slices import Slice, slice_means


def test_each_range_holds_its_lower_end_and_not_its_upper_one() -> None:
    values_P = np.array([1.0, 0.0, 1.0, 0.5, 0.25])
    counts_P = np.array([0, 1, 4, 5, 900])

    slices = slice_means(values_P, counts_P, edges=(0, 1, 5, 20, 1000))

    assert slices == [
        Slice(at_least=0, below=1, num_targets=1, mean=1.0),
        Slice(at_least=1, below=5, num_targets=2, mean=0.5),
        Slice(at_least=5, below=20, num_targets=1, mean=0.5),
        Slice(at_least=20, below=1000, num_targets=1, mean=0.25),
        Slice(at_least=1000, below=None, num_targets=0, mean=None),
    ]


@given(
    targets=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30)), max_size=20),
    inner=st.sets(st.integers(1, 25), max_size=4),
)
def test_slices_together_are_the_whole(targets: list[tuple[float, int]], inner: set[int]) -> None:
    values_P = np.array([value for value, _ in targets])
    counts_P = np.array([count for _, count in targets], dtype=np.int64)

    slices = slice_means(values_P, counts_P, edges=[0, *sorted(inner)])

    assert sum(part.num_targets for part in slices) == len(targets)
    total = sum(part.num_targets * (part.mean or 0.0) for part in slices)
    assert total == pytest.approx(values_P.sum())
    for part in slices:
        inside = [v for v, n in targets if part.at_least <= n and n < (part.below or 99)]
        assert part.num_targets == len(inside)
        assert part.mean == (pytest.approx(np.mean(inside)) if inside else None)


@pytest.mark.parametrize("edges", [(), (0, 5, 5), (5, 0)])
def test_edges_that_do_not_ascend_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        slice_means(np.zeros(1), np.ones(1, dtype=np.int64), edges=edges)


def test_a_count_below_the_first_edge_is_refused() -> None:
    with pytest.raises(ValueError, match="a count of 0 lies below the first edge, 1"):
        slice_means(np.zeros(2), np.array([0, 3]), edges=(1, 2))
