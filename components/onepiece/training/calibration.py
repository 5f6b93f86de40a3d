"""Whether probabilities mean what they say: expected calibration error of one task.

Which rows to pass is the caller's choice and changes the answer. A model says the probability
among the candidates that its loss counted; among those seen, say, the true share is higher.
"""

# Shape suffixes: N = candidates.

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15
"""Bins of both errors; Guo et al. 2017 (arXiv:1706.04599), section 5."""


def equal_width_error(
    probabilities_N: NDArray[np.float64],
    positive_N: NDArray[np.bool_],
    *,
    num_bins: int = NUM_BINS,
) -> float:
    """Gives the mean gap between said and true share, over bins of equal width: ECE.

    A bin holds its lower edge and not its upper one; 1 is in the last. With rare positives most
    candidates share the first bin, and the error says little: see `equal_mass_error`.

    Args:
        probabilities_N: (N,) in [0, 1].
        positive_N: (N,) what happened.
        num_bins: At least 1.

    Returns:
        In [0, 1]: the absolute gap of each bin, weighted by its candidates; NaN without any.

    Raises:
        ValueError: A probability is outside [0, 1], or is NaN.

    Source:
        Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al. 2017 (arXiv:1706.04599), Eq. 3, here
        for the probability of one event instead of the likeliest class.
    """
    _refuse_impossible(probabilities_N)
    inner_edges = np.arange(1, num_bins) / num_bins
    bins_N = np.searchsorted(inner_edges, probabilities_N, side="right")
    return _gap(probabilities_N, positive_N, bins_N)


def equal_mass_error(
    probabilities_N: NDArray[np.float64],
    positive_N: NDArray[np.bool_],
    *,
    num_bins: int = NUM_BINS,
) -> float:
    """Gives the mean gap between said and true share, over bins of equally many candidates.

    Equal probabilities share a bin, the one of the first of them, so that the order of the
    candidates decides nothing; bins are then not quite equal. Arguments, result and errors as
    `equal_width_error`.

    Source:
        Nguyen and O'Connor, EMNLP 2015 (arXiv:1508.05154), adaptive bins; Roelofs et
        al. 2022 (arXiv:2012.08668) on why they are less biased.
    """
    _refuse_impossible(probabilities_N)
    place_N = np.searchsorted(np.sort(probabilities_N), probabilities_N, side="left")
    bins_N = place_N * num_bins // max(1, len(probabilities_N))
    return _gap(probabilities_N, positive_N, bins_N)


def _gap(
    probabilities_N: NDArray[np.float64],
    positive_N: NDArray[np.bool_],
    bins_N: NDArray[np.int64],
) -> float:
    if not len(bins_N):
        return float("nan")
    surplus = np.bincount(bins_N, weights=probabilities_N - positive_N)
    return float(np.abs(surplus).sum() / len(bins_N))


def _refuse_impossible(probabilities_N: NDArray[np.float64]) -> None:
    is_possible_N = (probabilities_N >= 0.0) & (probabilities_N <= 1.0)
    if not is_possible_N.all():
        raise ValueError(
            f"{int((~is_possible_N).sum())} of {len(probabilities_N)} probabilities are not in "
            "[0, 1]; pass probabilities, not logits"
        )
