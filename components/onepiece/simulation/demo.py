"""The main job: a shop's real orders in, a measured experiment out.

    real receipts -> event log -> logging weeks -> histories, anchors, item tables (features)
    -> training -> bundle -> index -> REST and gRPC servers -> live weeks with three arms in two
    layers -> the report; and every cell replayed for everybody, so that the truth is known.

Nothing here computes: each step is a stage's own function or command. All instants are the
data's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from onepiece.bundle import load_bundle
from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.events.anchors import AnchorLedger, AnchorRecipe, QueryUpdate
from onepiece.events.history import HistoryRecipe
from onepiece.events.log import EventLog
from onepiece.events.open_log import LogPlace, create_log
from onepiece.events.schema import DAY_MS
from onepiece.experiment.plan import demo_plan
from onepiece.experiment.report import ExperimentReport
from onepiece.experiment.router import Router
from onepiece.features.backfill import backfill
from onepiece.features.daily_batch import DailyBatch
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.feast_store import FeastStore
from onepiece.features.item_table import ItemTables
from onepiece.index.build import build_index
from onepiece.parsing import read_recipe
from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.ray_environment import Addresses
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.skew_report import SkewReport
from onepiece.simulation.cell_platform import Cell
from onepiece.simulation.cells import CellResult, CellSetting, replay_cells
from onepiece.simulation.demo_processes import ANSWER_TIMEOUT_S, RANKING_BUNDLE, Processes
from onepiece.simulation.demo_recipe import DemoRecipe
from onepiece.simulation.demo_report import num_equal, write_demo_report
from onepiece.simulation.demo_shop import DemoShop, read_shop
from onepiece.simulation.demo_skew import watch_live_weeks
from onepiece.simulation.interest import prices_of
from onepiece.simulation.live_platform import LivePlatform, TwoDoorClient
from onepiece.simulation.logging_platform import LoggingPlatform
from onepiece.simulation.logging_policy import LoggingPolicy
from onepiece.simulation.progress import Bar, Progress
from onepiece.simulation.replay import ReplayProgress, replay
from onepiece.simulation.run_folder import RunFolder
from onepiece.simulation.services import Services
from onepiece.simulation.shopper import Shopper
from onepiece.simulation.visits import num_intents
from onepiece.training.examples import build_examples
from onepiece.training.log_vocabulary import vocabulary_of_log
from onepiece.training.recipe import TrainingRecipe

APPEND_ORDERS = 2_000
"""Receipts appended at once; one transaction each."""
NUM_CLIENT_THREADS = 8
"""Requests under way at once; chosen here: keeps one replica on one core busy."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    report: ExperimentReport
    num_households: int
    """Households with a visit in the live weeks."""
    num_replayed_equal: int
    """Of them, those whose orders over REST and gRPC are worth what the replay of their own cell,
    in one process and with other batches, says: to the cent."""
    skew: SkewReport
    """What was read over REST and gRPC, against what is rebuilt offline."""
    example_request: RecommendRequest
    """A request that the servers of this run can answer."""


@dataclass(frozen=True, slots=True)
class _LiveWeeks:
    """What came of the live weeks, and what their replay needs."""

    gmv_by_household: Mapping[str, float]
    queries_of_day: Mapping[int, Sequence[QueryUpdate]]
    """Midnight, Unix ms -> the anchors computed then."""


def num_steps(recipe: DemoRecipe) -> int:
    """Counts the steps that a demo shows; a second model has two of its own."""
    return 15 if recipe.ranking_training else 13


class Demo:
    """One run: the shop, the log, the stores and the folder that they are in."""

    def __init__(
        self,
        recipe: DemoRecipe,
        *,
        profile: str,
        root: Path,
        run: RunFolder,
        progress: Progress,
        addresses: Addresses,
        services: Services | None = None,
    ) -> None:
        """Takes what a run needs; does nothing yet.

        Args:
            recipe: The numbers.
            profile: Name of the recipe, for the report.
            root: The checkout, with feature_repo/ and ray_jobs/.
            run: Where everything is written.
            progress: Shows the steps.
            addresses: Where the server listens.
            services: A Kafka and a Redis to run on; None for the embedded log and store.
        """
        self._recipe = recipe
        self._profile = profile
        self._root = root
        self._path = run.path
        self._progress = progress
        self._processes = Processes(run, root=root, addresses=addresses)
        self._addresses = addresses
        self._plan = demo_plan(recipe.replay.seed)
        self._log_place: LogPlace = run.path / "log"
        self._store_settings = FeatureStoreSettings(folder=run.path / "store")
        if services is not None:
            self._log_place = services.kafka_settings(num_partitions=recipe.num_partitions)
            self._store_settings = FeatureStoreSettings(
                folder=run.path / "store", online="redis", redis=services.redis_settings
            )

    def run(self) -> DemoResult:
        """Runs every step and returns the result; the report is written, processes are running."""
        with self._progress.step("reading the data set", unit="receipt lines") as bar:
            shop = read_shop(self._recipe.replay)
            bar.to(len(shop.data.receipts))
        write_catalogue(shop.data.catalogue, self._path / "catalogue.parquet")
        log = create_log(self._log_place, num_partitions=self._recipe.num_partitions)
        store = FeastStore.create(self._root / "feature_repo", self._store_settings)
        store.write_profiles(shop.profiles, available_at_ms=0)
        self._import_receipts(shop, log)
        self._processes.start_history_consumer(self._log_place)
        batch = self._daily_batch(shop, log)
        self._tables_of_receipts(shop, batch)
        self._log_weeks(shop, log, batch)
        self._backfill(shop, log, store)
        self._train(shop, log, store, self._recipe.training, out="bundle")
        if self._recipe.ranking_training:
            self._train(shop, log, store, self._recipe.ranking_training, out=RANKING_BUNDLE)
        self._build_index()
        self._start_server()
        live = self._live_weeks(shop, log, store, batch)
        skew = self._watch(shop, log)
        cells = self._replay_cells(shop, live.queries_of_day)
        with self._progress.step("the report", unit="reports") as bar:
            report = write_demo_report(
                self._recipe, self._plan, shop, log, cells, profile=self._profile, run=self._path
            )
            bar.to(1)
        log.close()
        last = shop.live_visits[-1]
        return DemoResult(
            report=report,
            num_households=len(live.gmv_by_household),
            num_replayed_equal=num_equal(self._plan, live.gmv_by_household, cells),
            skew=skew,
            example_request=RecommendRequest(
                request_id="example-1",
                user_id=last.household_id,
                query_id=last.intents[0].query_id,
                store_id=last.store_id,
                as_of_ms=shop.live_end_ms,
                count=5,
            ),
        )

    def serve_again(self, folder: Path) -> None:
        """Starts the servers from a complete run's folder."""
        self._processes.start_server(folder, recipe=self._recipe.serving)

    def _import_receipts(self, shop: DemoShop, log: EventLog) -> None:
        """Appends the past of the households that will browse."""
        total = len(shop.past.basket_starts) - 1
        with self._progress.step("real receipts to events", unit="receipts", total=total) as bar:
            done = 0
            past_orders = shop.past_orders()
            while orders := list(islice(past_orders, APPEND_ORDERS)):
                log.append(orders)
                done += len(orders)
                bar.to(done)

    def _daily_batch(self, shop: DemoShop, log: EventLog) -> DailyBatch:
        return DailyBatch(
            log,
            shop.data.catalogue,
            ledger=shop.background_sales(),
            anchors=AnchorLedger(AnchorRecipe()),
            promotions_at=shop.promotions_at,
            recipe=self._recipe.item_table,
            out=self._path / "item_tables",
        )

    def _receipts_start_ms(self, shop: DemoShop) -> int:
        """First instant whose receipts may be trained on."""
        return shop.logging_start_ms - 7 * self._recipe.num_receipt_weeks * DAY_MS

    def _tables_of_receipts(self, shop: DemoShop, batch: DailyBatch) -> None:
        """Makes the item tables of the weeks whose receipts may be trained on."""
        days = range(self._receipts_start_ms(shop), shop.logging_start_ms, DAY_MS)
        with self._progress.step("item tables of past weeks", unit="days", total=len(days)) as bar:
            for done, day_start_ms in enumerate(days, start=1):
                batch.run(day_start_ms)
                bar.to(done)

    def _shopper(self, shop: DemoShop, tables: ItemTables) -> Shopper:
        return Shopper(
            self._recipe.shopper,
            shop.data.catalogue,
            prices_of(tables.at),
            seed=self._recipe.replay.seed,
        )

    def _log_weeks(self, shop: DemoShop, log: EventLog, batch: DailyBatch) -> None:
        """Lets the logging policy answer; what happens is what will be trained on."""
        platform = LoggingPlatform(
            LoggingPolicy(self._recipe.logging_policy, seed=self._recipe.replay.seed),
            log,
            lambda day_start_ms: batch.run(day_start_ms).table,
        )
        total = num_intents(shop.logging_visits)
        with self._progress.step("logging weeks", unit="pages", total=total) as bar:
            replay(
                shop.logging_visits,
                platform,
                self._shopper(shop, ItemTables(self._path / "item_tables")),
                page_size=self._recipe.replay.page_size,
                on_progress=_shown_on(bar),
            )

    def _backfill(self, shop: DemoShop, log: EventLog, store: FeastStore) -> None:
        """Computes the features of the training weeks as they were."""
        total = sum(log.end_offsets())
        with self._progress.step("features as they were", unit="events", total=total) as bar:
            backfill(
                log,
                shop.data.catalogue,
                history_recipe=HistoryRecipe(),
                anchor_recipe=AnchorRecipe(),
                from_ms=self._receipts_start_ms(shop),
                to_ms=shop.live_start_ms,
                out=store.offline_folder,
                profiles=shop.profiles,
                user_ids=shop.household_ids,
                on_progress=bar.to,
            )

    def _train(
        self, shop: DemoShop, log: EventLog, store: FeastStore, recipe: str, *, out: str
    ) -> None:
        """Joins features with what was logged, and trains a bundle on it."""
        path = self._root / "ray_jobs" / "recipes" / f"{recipe}.yaml"
        examples = self._path / f"{out}_examples"
        until_ms = shop.live_start_ms
        with self._progress.step("training examples", unit="examples") as bar:

            def show(done: int, total: int) -> None:
                bar.grow(total)
                bar.to(done)

            num_examples = build_examples(
                log,
                store,
                ItemTables(self._path / "item_tables"),
                vocabulary_of_log(log, store, shop.data.catalogue, until_ms=until_ms),
                read_recipe(path, TrainingRecipe),
                examples,
                until_ms=until_ms,
                on_progress=show,
            )
            bar.to(num_examples)
        with self._progress.step("training (Ray Train)", unit="steps") as bar:
            self._processes.train(path, examples, self._path / out, bar)

    def _build_index(self) -> None:
        with self._progress.step("item vectors and index", unit="items") as bar:
            index = build_index(load_bundle(self._path / "bundle"), self._path / "index")
            bar.to(len(index.item_ids))

    def _start_server(self) -> None:
        with self._progress.step("starting the servers (Ray Serve)", unit="servers") as bar:
            self._processes.start_server(self._path, recipe=self._recipe.serving)
            bar.to(1)

    def _live_weeks(
        self, shop: DemoShop, log: EventLog, store: FeastStore, batch: DailyBatch
    ) -> "_LiveWeeks":
        """Lets the experiment answer, three arms in two layers, over REST and gRPC."""
        queries_of_day: dict[int, list[QueryUpdate]] = {}

        def start_day(day_start_ms: int) -> None:
            queries_of_day[day_start_ms] = batch.run(day_start_ms).queries
            store.write_queries(queries_of_day[day_start_ms])

        total = num_intents(shop.live_visits)
        with (
            HttpClient(self._addresses.http_url, timeout_s=ANSWER_TIMEOUT_S) as rest,
            GrpcClient(self._addresses.grpc_target, timeout_s=ANSWER_TIMEOUT_S) as grpc,
            Router(
                self._plan, TwoDoorClient(rest, grpc), log, num_threads=NUM_CLIENT_THREADS
            ) as router,
            self._progress.step("live weeks (REST and gRPC)", unit="pages", total=total) as bar,
        ):
            result = replay(
                shop.live_visits,
                LivePlatform(router, log, start_day=start_day, pause=self._processes.pause),
                self._shopper(shop, ItemTables(self._path / "item_tables")),
                page_size=self._recipe.replay.page_size,
                on_progress=_shown_on(bar),
            )
        return _LiveWeeks(result.gmv_by_household(), queries_of_day)

    def _watch(self, shop: DemoShop, log: EventLog) -> SkewReport:
        """Rebuilds what the servers read."""
        ranking = RANKING_BUNDLE if self._recipe.ranking_training else "bundle"
        with self._progress.step("contexts rebuilt offline", unit="contexts") as bar:
            report = watch_live_weeks(shop, log, self._path, bundle=self._path / ranking)
            bar.to(report.num_checked)
        return report

    def _replay_cells(
        self, shop: DemoShop, queries_of_day: Mapping[int, Sequence[QueryUpdate]]
    ) -> list[CellResult]:
        """Replays every cell for everybody, and OnePiece without fresh histories."""
        retrieval, prerank = self._plan.layers
        cells = [
            Cell(retrieval.arm(first).uses, prerank.arm(second).uses)
            for first in retrieval.arm_names
            for second in prerank.arm_names
        ]
        cells.append(Cell("onepiece", "onepiece", is_history_streamed=False))
        setting = CellSetting(
            log=self._log_place,
            bundle=self._path / "bundle",
            ranking_bundle=self._path / RANKING_BUNDLE if self._recipe.ranking_training else None,
            index=self._path / "index",
            item_tables=self._path / "item_tables",
            catalogue=shop.data.catalogue,
            profiles=shop.profiles,
            queries_of_day=queries_of_day,
            visits=shop.live_visits,
            live_start_ms=shop.live_start_ms,
            page_size=self._recipe.replay.page_size,
            shopper=self._recipe.shopper,
            history=HistoryRecipe(),
            serving=self._recipe.serving,
            seed=self._recipe.replay.seed,
        )
        total = num_intents(shop.live_visits) * len(cells)
        with self._progress.step("replaying every cell", unit="pages", total=total) as bar:
            return replay_cells(
                cells,
                setting,
                num_processes=self._recipe.num_replay_processes,
                on_progress=bar.to,
            )


def _shown_on(bar: Bar) -> Callable[[ReplayProgress], None]:
    def show(progress: ReplayProgress) -> None:
        bar.to(progress.num_intents_done)

    return show
