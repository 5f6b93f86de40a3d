"""Variable reasoning depth: what early stopping costs in quality and saves in steps.

A request stops once a step moved no candidate's share of the last task's softmax by `least_change`
or more. All steps that are counted here were really computed, and no others.
"""

# Shape suffixes: R = requests, J = depths 0 to K, N = candidates, B = requests of a batch,
#                 K = tasks.

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.errors import InvalidInput
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import DepthScores, HeadsRecipe, Model
from onepiece.training.evaluate import ScoredPage, first_found
from onepiece.training.packed import ExampleBatch, Examples

LEAST_CHANGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Thresholds of the curve; chosen here: a share lies in [0, 1], and below a thousandth of it no
page looks different."""
ALLOWED_LOSS = 0.01
"""Share of the full depth's quality that the chosen threshold may cost; chosen here."""
_SCORED_AT_ONCE = 64

Quality = Callable[[Sequence[ScoredPage]], float]
"""Measures scored pages; greater is better."""


@dataclass(frozen=True, slots=True)
class Point:
    """Quality at some depth."""

    least_change: float | None
    """Threshold by which each request stopped; None where all took equally many steps."""
    mean_steps: float
    """Steps computed, a request."""
    quality: float
    num_requests_J: tuple[int, ...]
    """Requests that took 0, 1, ... K steps."""


@dataclass(frozen=True, slots=True)
class DepthCurve:
    """Quality against computed steps, of one model on some requests."""

    fixed: tuple[Point, ...]
    """All requests after 0, 1, ... K steps."""
    early: tuple[Point, ...]
    """Each request stopped on its own, one point a threshold, ascending."""


@dataclass(frozen=True, slots=True)
class DepthResult:
    """The threshold chosen on some requests, and the curve of others."""

    least_change: float
    """The threshold chosen; 0, which never stops, where none is good enough."""
    allowed_loss: float
    """Share of the full depth's quality that it might cost where it was chosen."""
    has_early_exit: bool
    """Whether the model was trained to be read at every depth."""
    curve: DepthCurve
    chosen: Point
    """The threshold on the requests of the curve."""


def measure_depth(
    model: Model,
    examples: Examples,
    rows_R: NDArray[np.int64],
    *,
    quality: Callable[[NDArray[np.int64]], Quality],
    allowed_loss: float = ALLOWED_LOSS,
) -> DepthResult:
    """Chooses a threshold on every second request and draws the curve of the others.

    Args:
        model: In evaluation mode, with a ranking head.
        examples: Where the requests are.
        rows_R: At least two rows of examples.
        quality: Gives for some of the rows what measures their pages, which come in that order.
        allowed_loss: In [0, 1).

    Raises:
        InvalidInput: The model cannot stop early, or too few rows.
    """
    if len(rows_R) < 2:
        raise InvalidInput(
            f"{len(rows_R)} requests were given; one half chooses the threshold and the other is "
            "measured, so give at least 2"
        )
    depth_model = deep(model, examples)
    choosing_R, measured_R = rows_R[::2], rows_R[1::2]
    curve = depth_curve(
        model, examples, choosing_R, quality=quality(choosing_R), least_changes=LEAST_CHANGES
    )
    least_change = choose(curve, allowed_loss=allowed_loss)
    measured = depth_curve(
        model,
        examples,
        measured_R,
        quality=quality(measured_R),
        least_changes=(least_change, *LEAST_CHANGES),
    )
    return DepthResult(
        least_change=least_change,
        allowed_loss=allowed_loss,
        has_early_exit=depth_model.has_early_exit,
        curve=DepthCurve(measured.fixed, measured.early[1:]),
        chosen=measured.early[0],
    )


def choose(curve: DepthCurve, *, allowed_loss: float) -> float:
    """Finds the greatest threshold that costs no more than it may; 0 if each costs more.

    Args:
        curve: Of requests to choose on.
        allowed_loss: Share of the quality at full depth that may be lost, in [0, 1).
    """
    least = (1.0 - allowed_loss) * curve.fixed[-1].quality
    allowed = [
        point.least_change
        for point in curve.early
        if point.least_change is not None and point.quality >= least
    ]
    return max(allowed, default=0.0)


def depth_curve(
    model: Model,
    examples: Examples,
    rows_R: NDArray[np.int64],
    *,
    quality: Quality,
    least_changes: Sequence[float],
) -> DepthCurve:
    """Scores requests at every fixed depth, and once a threshold.

    Args:
        model: In evaluation mode, with a ranking head.
        examples: Where the requests are.
        rows_R: At least one row of examples.
        quality: Measures their pages, which come in that order.
        least_changes: Thresholds; at 0 no request stops.

    Raises:
        InvalidInput: The model cannot stop early.
    """
    deep_model = deep(model, examples)
    fixed: list[list[ScoredPage]] = []
    early: list[list[ScoredPage]] = [[] for _ in least_changes]
    steps: list[list[int]] = [[] for _ in least_changes]
    for start in range(0, len(rows_R), _SCORED_AT_ONCE):
        batch = examples.batch(rows_R[start : start + _SCORED_AT_ONCE])
        with torch.inference_mode():
            candidates = candidate_tensors(
                batch.context,
                group_size=model.recipe.group_size,
                seeds_B=batch.seeds,
                device=model.device,
            )
            encoding = model.encode_context(context_tensors(batch.context, device=model.device))
            logits_BJNK = deep_model.score_every_depth(encoding, candidates)
            fixed = fixed or [[] for _ in range(logits_BJNK.shape[1])]
            for pages, logits_BNK in zip(fixed, logits_BJNK.unbind(1), strict=True):
                pages += _pages(batch, logits_BNK)
            for place, least_change in enumerate(least_changes):
                scored = deep_model.score_to_depth(encoding, candidates, least_change=least_change)
                early[place] += _pages(batch, scored.logits_BNA)
                steps[place] += scored.num_steps_B.tolist()
    num_steps, num_requests = len(fixed) - 1, len(rows_R)
    return DepthCurve(
        fixed=tuple(
            _point(None, [depth] * num_requests, quality(pages), num_steps=num_steps)
            for depth, pages in enumerate(fixed)
        ),
        early=tuple(
            _point(least_change, taken, quality(pages), num_steps=num_steps)
            for least_change, taken, pages in zip(least_changes, steps, early, strict=True)
        ),
    )


def deep(model: Model, examples: Examples) -> DepthScores:
    """Takes a model that scores candidates at every depth.

    Raises:
        InvalidInput: It does not, or the examples rank the catalogue.
    """
    if not isinstance(model, DepthScores) or not model.recipe.ranking_tasks:
        raise InvalidInput(
            f"a {type(model).__name__} with ranking tasks {list(model.recipe.ranking_tasks)} does "
            "not reason about candidates; give a bundle of kind onepiece with a ranking head"
        )
    if examples.ranks == "catalogue":
        raise InvalidInput(
            "these examples rank the whole catalogue, by user vectors, which always take all "
            "steps; give examples that rank candidates"
        )
    return model


def mean_first_found(recipe: HeadsRecipe) -> Quality:
    """Makes `mrr_first` of `evaluate` a quality: of pages that have a target.

    Raises:
        InvalidInput: No page has one.
    """

    def quality(pages: Sequence[ScoredPage]) -> float:
        values_R = first_found(list(pages), recipe)
        values_R = values_R[~np.isnan(values_R)]
        if not len(values_R):
            raise InvalidInput(
                f"of {len(pages)} requests none has a target of {recipe.ranking_tasks[-1]}; give "
                "examples with some"
            )
        return float(values_R.mean())

    return quality


def _pages(batch: ExampleBatch, logits_BNK: torch.Tensor) -> list[ScoredPage]:
    scores_BNK = logits_BNK.double().cpu().numpy()
    return [
        ScoredPage(
            stages_N=batch.stages[place, :count],
            user_code=int(batch.user_codes[place]),
            logits_NK=scores_BNK[place, :count],
            similarities_N=np.zeros(0),
            num_missed=int(batch.num_missed[place]),
        )
        for place, count in enumerate(batch.context.candidate_mask.sum(1))
    ]


def _point(
    least_change: float | None, steps: Sequence[int], quality: float, *, num_steps: int
) -> Point:
    counts = np.bincount(np.array(steps, dtype=np.int64), minlength=num_steps + 1)
    return Point(least_change, float(np.mean(steps)), quality, tuple(counts.tolist()))
