"""What a run of the skew watch says, as data; the page and the metrics are made from this alone."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from onepiece.bundle import Bundle
from onepiece.context.histograms import (
    FeatureHistograms,
    Histogram,
    Values,
    count_into,
    feature_values,
)
from onepiece.context.vocabulary import FIRST_ROW, UNKNOWN_ROW
from onepiece.errors import NotFound
from onepiece.events.log import EventLog, read_events, read_standing_events
from onepiece.events.schema import Action, Exposure
from onepiece.features.item_table import ItemTable
from onepiece.serving.drift import FeatureDrift, measure
from onepiece.serving.skew import CAUSES, Cause, Checked, Mismatch, check
from onepiece.serving.skew_rebuild import Rebuilder, Rebuilt, draw_shelf
from onepiece.serving.skew_sample import Sample, draw_sample

NO_TABLE = "no_item_table"
"""An exposure of before the first item table kept: it cannot be rebuilt."""
MAX_EXAMPLES = 5
"""Mismatches named of each cause."""
NUM_SHELF_ITEMS = 20
"""Items drawn of each request's shelf; chosen here, about as many as training draws."""


class SkewRecipe(BaseModel):
    """What is looked at, and how closely."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_ms: int | None = Field(
        None, ge=0, description="First instant of an exposure, Unix ms; none: the log's first."
    )
    to_ms: int | None = Field(
        None, ge=0, description="First instant after the exposures, Unix ms; none: no end."
    )
    num_sampled: int = Field(2_000, ge=1, le=1_000_000, description="Most exposures checked.")
    seed: int = Field(0, description="Seed of the sample.")
    lag_s: float = Field(
        60.0,
        ge=0.0,
        le=86_400.0,
        allow_inf_nan=False,
        description="How long before or after an exposure something may have been received, and "
        "still explain a difference, in seconds.",
    )
    max_mismatch_share: float = Field(
        0.001,
        ge=0.0,
        le=1.0,
        allow_inf_nan=False,
        description="Part of the exposures checked that may differ unexplained without an alarm.",
    )


class Example(BaseModel):
    """One mismatch, to look into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str = Field(description="Of the exposure.")
    at_ms: int = Field(description="Its instant, Unix ms.")
    parts: tuple[str, ...] = Field(description="Where it differs.")
    cause: Cause = Field(description="Why.")


class SkewReport(BaseModel):
    """One run of the watch; the JSON file is this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(1, description="Version of this format.")
    bundle_version: str = Field(description="Bundle whose exposures were checked.")
    recipe: SkewRecipe = Field(description="What was looked at.")
    first_ms: int = Field(description="Instant of the first exposure checked, Unix ms.")
    last_ms: int = Field(description="Instant of the last one.")
    num_left_out: dict[str, int] = Field(description="Why an exposure was not checked -> how many.")
    num_by_result: dict[str, int] = Field(description='"equal" or a cause -> exposures.')
    num_by_part: dict[str, dict[Cause, int]] = Field(
        description="Part of the context -> cause -> exposures that differ in it."
    )
    examples: tuple[Example, ...] = Field(description="The first mismatches of each cause.")
    num_training_requests: int = Field(description="Requests behind the training's histograms.")
    drift: tuple[FeatureDrift, ...] = Field(
        description="Every feature, the one that moved most first; empty if the bundle says "
        "nothing of its training."
    )

    @property
    def num_checked(self) -> int:
        """Exposures rebuilt and compared."""
        return sum(self.num_by_result.values())

    @property
    def unexplained_share(self) -> float:
        """Part of the exposures checked whose context differs for no known reason, in [0, 1]."""
        return self.num_by_result["unexplained"] / self.num_checked

    @property
    def is_alarming(self) -> bool:
        """Whether more exposures differ unexplained than the recipe allows."""
        return self.unexplained_share > self.recipe.max_mismatch_share


def sample_of(log: EventLog, bundle: Bundle, recipe: SkewRecipe) -> Sample:
    """Draws the exposures of a bundle that a recipe asks for; none of users who were erased."""
    return draw_sample(
        read_standing_events(log),
        model_version=bundle.version,
        num_wanted=recipe.num_sampled,
        seed=recipe.seed,
        from_ms=recipe.from_ms,
        to_ms=recipe.to_ms,
    )


def watch(
    log: EventLog, sample: Sample, *, rebuilder: Rebuilder, bundle: Bundle, recipe: SkewRecipe
) -> SkewReport:
    """Checks a sample of a bundle's exposures, and compares what they read with the training.

    Args:
        log: Where the sample is from; says what was received around an exposure that differs.
        sample: What `sample_of` drew.
        rebuilder: Knows the offline store.
        bundle: That answered.
        recipe: What was asked for.

    Raises:
        NotFound: There is no exposure of this bundle to check: a watch that sees nothing must not
            look like one that is content.
    """
    exposures = [one for one in sample.exposures if one.at_ms >= rebuilder.first_ms]
    num_left_out = {**sample.num_left_out, NO_TABLE: len(sample.exposures) - len(exposures)}
    if not exposures:
        raise NotFound(
            f"no exposure of bundle {bundle.version[:12]} can be checked; left out: "
            f"{num_left_out}. Give the bundle that answered (of two, the one that ranked), and a "
            "time in which it did"
        )
    checked = check(exposures, rebuilder, read_events(log), lag_ms=round(recipe.lag_s * 1_000))
    histograms = bundle.feature_histograms
    return SkewReport(
        bundle_version=bundle.version,
        recipe=recipe,
        first_ms=exposures[0].at_ms,
        last_ms=exposures[-1].at_ms,
        num_left_out=num_left_out,
        num_by_result=checked.num_by_result(),
        num_by_part=checked.num_by_part(),
        examples=_examples(checked.mismatches),
        num_training_requests=histograms.num_requests if histograms else 0,
        drift=_drift(histograms, exposures, checked, bundle) if histograms else (),
    )


def _examples(mismatches: Sequence[Mismatch]) -> tuple[Example, ...]:
    of_cause = {cause: [one for one in mismatches if one.cause == cause] for cause in CAUSES}
    return tuple(
        Example(
            request_id=one.exposure.request_id,
            at_ms=one.exposure.at_ms,
            parts=one.parts,
            cause=cause,
        )
        for cause in reversed(CAUSES)
        for one in of_cause[cause][:MAX_EXAMPLES]
    )


def _drift(
    training: FeatureHistograms, exposures: Sequence[Exposure], checked: Checked, bundle: Bundle
) -> tuple[FeatureDrift, ...]:
    served = count_into(training, _values(exposures, checked.rebuilt, bundle))
    names = _category_names(bundle, checked.rebuilt[-1].table)
    labels = {
        feature: _labels(feature, histogram, bundle, names)
        for feature, histogram in training.features.items()
    }
    return measure(training, served, labels)


def _values(
    exposures: Iterable[Exposure], rebuilt: Iterable[Rebuilt], bundle: Bundle
) -> Iterator[Values]:
    for exposure, one in zip(exposures, rebuilt, strict=True):
        shelf = draw_shelf(exposure, one.table, num_items=NUM_SHELF_ITEMS)
        yield feature_values(one.context, shelf, bundle.vocabulary)


def _labels(
    feature: str, histogram: Histogram, bundle: Bundle, category_names: dict[int, str]
) -> tuple[str, ...]:
    """Says what each bin holds."""
    bounds = histogram.bounds
    if histogram.kind == "number":
        told = [f"{bound:.4g}" for bound in bounds]
        last = f"above {told[-1]}" if told else "any"
        return (*(f"up to {bound}" for bound in told), last)
    codes = [int(bound) for bound in bounds]
    match feature:
        case "action":
            names = [Action(code).name.lower() for code in codes]
        case "category":
            names = [category_names.get(code, "unknown") for code in codes]
        case "query":
            queries = bundle.vocabulary.query_ids
            names = [queries[c - FIRST_ROW] if c >= FIRST_ROW else "unknown" for c in codes]
        case _:
            names = ["yes" if code else "no" for code in codes]
    return (*names, "others")


def _category_names(bundle: Bundle, table: ItemTable) -> dict[int, str]:
    """Names the categories' codes: the vocabulary keeps codes only, the shop knows the words."""
    vocabulary = bundle.vocabulary
    rows = table.rows_of(vocabulary.item_ids)
    codes, first = np.unique(vocabulary.category_codes[FIRST_ROW:][rows >= 0], return_index=True)
    categories = table.item_categories[rows[rows >= 0][first]]
    return {
        code: table.category_ids[category]
        for code, category in zip(codes.tolist(), categories.tolist(), strict=True)
        if code != UNKNOWN_ROW
    }
