"""The demo's report: the experiment's estimate beside what the replays say is true."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from onepiece.bundle import load_bundle
from onepiece.events.log import EventLog, read_standing_events
from onepiece.events.schema import DAY_MS
from onepiece.experiment.assignment import PlannedAssignment
from onepiece.experiment.join import join_outcomes
from onepiece.experiment.outcomes import LivePhase
from onepiece.experiment.plan import ExperimentPlan, dump_plan
from onepiece.experiment.report import ExperimentReport, Provenance, build_report, write_report
from onepiece.experiment.report_html import render_page
from onepiece.experiment.truth import CellReplay, Truth, true_effects
from onepiece.simulation.cells import CellResult
from onepiece.simulation.demo_recipe import DemoRecipe
from onepiece.simulation.demo_shop import DemoShop

DATASET = "Complete Journey (84.51/dunnhumby): one year of real grocery receipts"
HALF_A_CENT = 0.005
"""Prices are in whole cents; sums of them differ by rounding only below this."""
_FROZEN = "histories of the day's start"


def write_demo_report(
    recipe: DemoRecipe,
    plan: ExperimentPlan,
    shop: DemoShop,
    log: EventLog,
    cells: Sequence[CellResult],
    *,
    profile: str,
    run: Path,
) -> ExperimentReport:
    """Judges the live weeks and writes the report, the plan and the recipe into the run's folder.

    Args:
        recipe: What was run.
        plan: The experiment.
        shop: Says when the live weeks were.
        log: Everything that happened.
        cells: The replays.
        profile: Name of the recipe.
        run: Folder with the bundle; gets report/, plan.yaml and recipe.json.
    """
    num_live_days = 7 * recipe.replay.num_live_weeks
    phase = LivePhase(
        from_ms=shop.live_start_ms,
        to_ms=shop.live_end_ms,
        # At most four times as long as the weeks judged; answered by the logging policy.
        pre_from_ms=max(shop.logging_start_ms, shop.live_start_ms - 4 * num_live_days * DAY_MS),
    )
    shopper = recipe.shopper.model_dump()
    provenance = Provenance(
        command=f"onepiece demo --profile {profile} --seed {recipe.replay.seed}",
        recipe=profile,
        seed=recipe.replay.seed,
        bundle_version=load_bundle(run / "bundle").version,
        dataset=DATASET,
        shopper={name: str(value) for name, value in shopper.items()},
    )
    report = build_report(
        plan,
        join_outcomes(read_standing_events(log), plan, phase=phase),
        provenance=provenance,
        truth=_truth(plan, cells),
    )
    write_report(report, render_page(report), run / "report")
    (run / "plan.yaml").write_text(dump_plan(plan))
    (run / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
    return report


def num_equal(
    plan: ExperimentPlan, live_gmv: Mapping[str, float], cells: Sequence[CellResult]
) -> int:
    """Counts the households whose live GMV equals that of the replay of their own cell."""
    assignment = PlannedAssignment(plan)
    retrieval, prerank = plan.layers
    replayed = {
        (one.cell.retriever, one.cell.ranker): dict(
            zip(one.household_ids, one.gmv_per_household.tolist(), strict=True)
        )
        for one in cells
        if one.cell.is_history_streamed
    }
    count = 0
    for household_id, gmv in live_gmv.items():
        arms = assignment.arms_of(household_id)
        cell = (
            retrieval.arm(arms[retrieval.name]).uses,
            prerank.arm(arms[prerank.name]).uses,
        )
        count += abs(gmv - replayed[cell][household_id]) < HALF_A_CENT
    return count


def _truth(plan: ExperimentPlan, cells: Sequence[CellResult]) -> Truth:
    retrieval, prerank = plan.layers
    replays = [
        CellReplay(
            arms={retrieval.name: one.cell.retriever, prerank.name: one.cell.ranker},
            gmv_per_user=one.gmv_per_household,
            mrr_at_20=one.mrr_at_20,
            note="" if one.cell.is_history_streamed else _FROZEN,
        )
        for one in cells
    ]
    return true_effects(plan, replays)
