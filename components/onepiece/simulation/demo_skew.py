"""The demo's skew watch: what the servers read in the live weeks, rebuilt from the log."""

from pathlib import Path

from onepiece.bundle import load_bundle
from onepiece.events.anchors import AnchorRecipe
from onepiece.events.history import HistoryRecipe
from onepiece.events.log import EventLog
from onepiece.features.item_table import ItemTables
from onepiece.features.replayed_store import replay_store
from onepiece.output import new_folder
from onepiece.serving.skew_files import write_files
from onepiece.serving.skew_rebuild import Rebuilder
from onepiece.serving.skew_report import SkewRecipe, SkewReport, sample_of, watch
from onepiece.simulation.demo_shop import DemoShop

NUM_CONTEXTS = 1_000
"""Most contexts rebuilt; chosen here: enough to see one defect in a few hundred, in seconds."""


def watch_live_weeks(shop: DemoShop, log: EventLog, run: Path, *, bundle: Path) -> SkewReport:
    """Rebuilds contexts of the live weeks and writes page, data and metrics to run/skew.

    The store of the run is backfilled for the training weeks only, so the live weeks are replayed
    from the log, for the users of the sample.

    Args:
        shop: Says when the live weeks were.
        log: Everything that happened.
        run: Folder of the run.
        bundle: The one that ranked.
    """
    loaded = load_bundle(bundle)
    recipe = SkewRecipe(
        from_ms=shop.live_start_ms, to_ms=shop.live_end_ms, num_sampled=NUM_CONTEXTS
    )
    sample = sample_of(log, loaded, recipe)
    store = replay_store(
        log,
        shop.data.catalogue,
        history_recipe=HistoryRecipe(),
        anchor_recipe=AnchorRecipe(),
        from_ms=shop.live_start_ms,
        to_ms=shop.live_end_ms,
        user_ids={one.user_id for one in sample.exposures},
        profiles=shop.profiles,
    )
    rebuilder = Rebuilder(loaded, store, ItemTables(run / "item_tables"))
    report = watch(log, sample, rebuilder=rebuilder, bundle=loaded, recipe=recipe)
    with new_folder(run / "skew") as unfinished:
        write_files(report, unfinished)
    return report
