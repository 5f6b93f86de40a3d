"""Replays every cell of the experiment for every household: what is true by construction.

Each cell starts from the same state, the histories at the beginning of the live weeks, and
lives through the same visits. Cells are divided among processes.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty

import numpy as np
import torch

from onepiece.bundle import load_bundle
from onepiece.events.anchors import QueryUpdate
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import take_update
from onepiece.events.history_fold import HistoryRecipe, UserHistory, fold
from onepiece.events.log import read_events
from onepiece.events.open_log import LogPlace, open_log
from onepiece.experiment.outcomes import Floats
from onepiece.features.item_table import ItemTables
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import UserProfile
from onepiece.index.build import open_index
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import ServingRecipe
from onepiece.simulation.cell_platform import Cell, CellPlatform, Histories
from onepiece.simulation.interest import prices_of
from onepiece.simulation.recipe import ShopperRecipe
from onepiece.simulation.replay import ReplayProgress, replay
from onepiece.simulation.replay_result import ReplayResult
from onepiece.simulation.run_folder import ChildFailed
from onepiece.simulation.shopper import Shopper
from onepiece.simulation.visits import Visit

MESSAGE_TIMEOUT_S = 1.0
"""How often the processes are looked after while none has anything to say."""


@dataclass(frozen=True)
class CellSetting:
    """All that the replay of a cell needs; sent to the process that runs it."""

    log: LogPlace
    """The event log; only what was received before the live weeks is read."""
    bundle: Path
    ranking_bundle: Path | None
    """None if `bundle` does both."""
    index: Path
    item_tables: Path
    catalogue: Catalogue
    profiles: Mapping[str, UserProfile]
    queries_of_day: Mapping[int, Sequence[QueryUpdate]]
    visits: tuple[Visit, ...]
    live_start_ms: int
    page_size: int
    shopper: ShopperRecipe
    history: HistoryRecipe
    serving: ServingRecipe
    seed: int


@dataclass(frozen=True, slots=True)
class CellResult:
    """What a cell did for every household."""

    cell: Cell
    household_ids: tuple[str, ...]
    """(U,) households with a visit, ascending; equal in all cells."""
    gmv_per_household: Floats
    """(U,) GMV of the live weeks."""
    mrr_at_20: float
    """Mean reciprocal rank of what was really bought, over bought items."""
    share_found: float
    """Share of what was really bought that stood in the top 20."""


@dataclass(frozen=True, slots=True)
class _Done:
    """A message from a process: how far one cell is, and its result at the end."""

    place: int
    num_intents: int
    result: CellResult | None = None


def replay_cells(
    cells: Sequence[Cell],
    setting: CellSetting,
    *,
    num_processes: int,
    on_progress: Callable[[int], None],
) -> list[CellResult]:
    """Replays each cell and returns the results in the order of the cells.

    Args:
        cells: What is to be compared.
        setting: What they have in common.
        num_processes: Processes; each loads the model and folds the log once.
        on_progress: Called with the number of intents answered so far, over all cells.

    Raises:
        ChildFailed: A process ended before its cells were done; its error is on stderr.
    """
    # A forked child would share the parent's threads' locks; spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    messages: Queue[_Done] = context.Queue()
    places = list(range(len(cells)))
    processes = [
        context.Process(
            target=_run_cells,
            args=([(place, cells[place]) for place in part], setting, messages, os.getpid()),
            daemon=True,
        )
        for part in (places[first::num_processes] for first in range(num_processes))
        if part
    ]
    done: dict[int, _Done] = {}
    try:
        for process in processes:
            process.start()
        while sum(one.result is not None for one in done.values()) < len(cells):
            message = _next_message(messages, processes)
            done[message.place] = message
            on_progress(sum(one.num_intents for one in done.values()))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [one.result for _, one in sorted(done.items()) if one.result is not None]


def _next_message(messages: "Queue[_Done]", processes: Sequence[BaseProcess]) -> _Done:
    while True:
        try:
            return messages.get(timeout=MESSAGE_TIMEOUT_S)
        except Empty:
            if any(process.exitcode not in (None, 0) for process in processes):
                raise ChildFailed(
                    "a process that replays cells ended too early; its error is above"
                ) from None


def _run_cells(
    cells: Sequence[tuple[int, Cell]],
    setting: CellSetting,
    messages: "Queue[_Done]",
    parent_pid: int,
) -> None:
    """Replays some cells one after another; runs in a process of its own."""
    torch.set_num_threads(1)
    users = _users_at_live_start(setting)
    bundle = load_bundle(setting.bundle)
    ranking_bundle = load_bundle(setting.ranking_bundle) if setting.ranking_bundle else None
    index = open_index(setting.index, bundle_version=bundle.version)
    tables = ItemTables(setting.item_tables)

    def pipeline_on(store: MemoryStore) -> Pipeline:
        return Pipeline(
            bundle,
            store=store,
            item_tables=tables,
            index=index,
            ranking_bundle=ranking_bundle,
            recipe=setting.serving,
        )

    for place, cell in cells:
        platform = _platform(cell, setting, users, pipeline_on)
        shopper = Shopper(
            setting.shopper, setting.catalogue, prices_of(tables.at), seed=setting.seed
        )

        def tell(progress: ReplayProgress, place: int = place) -> None:
            if os.getppid() != parent_pid:
                sys.exit("the run that started this replay is gone")
            messages.put(_Done(place, progress.num_intents_done))

        result = replay(
            setting.visits, platform, shopper, page_size=setting.page_size, on_progress=tell
        )
        messages.put(_Done(place, len(result.intents), _summary(cell, result)))


def _users_at_live_start(setting: CellSetting) -> dict[str, UserHistory]:
    """Folds what the log held when the live weeks began."""
    log = open_log(setting.log)
    users: dict[str, UserHistory] = {}
    for event in read_events(log, until_ms=setting.live_start_ms):
        user = users.setdefault(event.user_id, UserHistory())
        fold(user, event, category_of=setting.catalogue.category_of, recipe=setting.history)
    log.close()
    return users


def _platform(
    cell: Cell,
    setting: CellSetting,
    users: Mapping[str, UserHistory],
    pipeline_on: Callable[[MemoryStore], Pipeline],
) -> CellPlatform:
    """Makes a cell's own copy of the state."""
    store = MemoryStore()
    store.write_profiles(setting.profiles, available_at_ms=0)
    own = {name: user.copy() for name, user in users.items()}
    # Nothing was taken of the restored users yet, so every category of theirs is "changed".
    store.write_histories([take_update(name, user) for name, user in own.items()])
    histories = Histories(
        store, own, category_of=setting.catalogue.category_of, recipe=setting.history
    )
    return CellPlatform(
        cell,
        pipeline_on(store),
        store=store,
        histories=histories,
        queries_of_day=setting.queries_of_day,
    )


def _summary(cell: Cell, result: ReplayResult) -> CellResult:
    gmv = result.gmv_by_household()
    num_demanded = max(int(result.intents.num_demanded.sum()), 1)
    return CellResult(
        cell=cell,
        household_ids=tuple(gmv),
        gmv_per_household=np.array(list(gmv.values())),
        mrr_at_20=result.mrr_at_20(),
        share_found=float(result.intents.num_found.sum()) / num_demanded,
    )
