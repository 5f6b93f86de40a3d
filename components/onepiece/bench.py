"""`onepiece bench NAME`: compares two ways to do one thing, in one run, as a ratio.

Machines are noisy, so the two take turns and the ratio is one of medians; no time is compared
with one from another run.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from onepiece.errors import NotFound

if TYPE_CHECKING:
    from onepiece.bench_online import Figures
    from onepiece.context.batching import ContextBatch
    from onepiece.context.builder import Context
    from onepiece.context.vocabulary import Vocabulary
    from onepiece.models.onepiece import OnePiece

NUM_ROUNDS = 30
"""Turns that each of the two takes; chosen here, the median then moves by some percent."""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What a benchmark prints."""

    name: str
    ratio: float
    """`baseline` over `ours`: above 1, ours is better."""
    baseline: float
    ours: float
    unit: str
    settings: Mapping[str, str | int]
    others: Mapping[str, float] = field(default_factory=dict)
    """What else was measured in the same run; the unit is in each name."""


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `bench`."""
    summary = "Compare two ways to do one thing, in one run, as a ratio."
    names = "; ".join(f"{name}: {bench.__doc__}" for name, bench in BENCHMARKS.items())
    parser = subparsers.add_parser(
        "bench",
        help=summary,
        description=f"{summary} {names}",
        epilog="example: onepiece bench shared-context --json",
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.name not in BENCHMARKS:
        raise NotFound(f"no benchmark {args.name!r}; give one of {', '.join(BENCHMARKS)}")
    result = BENCHMARKS[args.name]()
    if args.json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
        sys.stdout.write(
            f"{result.name}: {result.ratio:.2f}x (baseline {result.baseline:.3g} {result.unit}, "
            f"ours {result.ours:.3g} {result.unit}; {settings})\n"
        )
        for name, value in result.others.items():
            sys.stdout.write(f"  {name:32} {value:.4g}\n")
    return 0


def bench_shared_context() -> BenchResult:
    """Scores 100 candidates; the context encoded again for each group, against once for all."""
    import torch

    from onepiece.models.inputs import candidate_tensors, context_tensors

    torch.set_num_threads(1)
    batch = _batch(num_candidates=100)
    shared, literal = _model("shared"), _model("literal")
    literal.load_state_dict(shared.state_dict())
    candidates = candidate_tensors(batch, group_size=shared.recipe.group_size)

    def score(model: "OnePiece") -> None:
        with torch.inference_mode():
            model.score_candidates(model.encode_context(context_tensors(batch)), candidates)

    baseline_s, ours_s = _take_turns(lambda: score(literal), lambda: score(shared))
    return BenchResult(
        "shared-context",
        baseline_s / ours_s,
        baseline_s * 1e3,
        ours_s * 1e3,
        "ms",
        _settings(shared, batch),
    )


def bench_one_encode() -> BenchResult:
    """Retrieves and pre-ranks 100 candidates; one encode for each stage, against one for both."""
    import torch

    from onepiece.models.inputs import candidate_tensors, context_tensors

    torch.set_num_threads(1)
    batch = _batch(num_candidates=100)
    model = _model("shared")
    candidates = candidate_tensors(batch, group_size=model.recipe.group_size)

    def twice() -> None:
        with torch.inference_mode():
            model.user_vectors(model.encode_context(context_tensors(batch)))
            model.score_candidates(model.encode_context(context_tensors(batch)), candidates)

    def once() -> None:
        with torch.inference_mode():
            encoding = model.encode_context(context_tensors(batch))
            model.user_vectors(encoding)
            model.score_candidates(encoding, candidates)

    baseline_s, ours_s = _take_turns(twice, once)
    return BenchResult(
        "one-encode",
        baseline_s / ours_s,
        baseline_s * 1e3,
        ours_s * 1e3,
        "ms",
        _settings(model, batch),
    )


def bench_context_parts() -> BenchResult:
    """Encodes a request and scores 100 candidates, against hashing its parts, which is extra."""
    import torch

    from onepiece.context.batching import collate
    from onepiece.context.parts import part_digests
    from onepiece.models.inputs import candidate_tensors, context_tensors

    torch.set_num_threads(1)
    context, model = _context(num_candidates=100), _model("shared")
    batch = collate([context])
    candidates = candidate_tensors(batch, group_size=model.recipe.group_size)

    def answer() -> None:
        with torch.inference_mode():
            model.score_candidates(model.encode_context(context_tensors(batch)), candidates)

    def hash_parts() -> None:
        part_digests(context, context.candidate_features[:20])

    baseline_s, ours_s = _take_turns(answer, hash_parts)
    parts = part_digests(context, context.candidate_features[:20])
    # As JSON in an exposure: the field, without its braces, and a comma.
    field = json.dumps({"context_parts": parts}, separators=(",", ":"))[1:-1] + ","
    return BenchResult(
        "context-parts",
        baseline_s / ours_s,
        baseline_s * 1e3,
        ours_s * 1e3,
        "ms",
        {**_settings(model, batch), "bytes_in_exposure": len(field)},
    )


def bench_history_writes() -> BenchResult:
    """Writes 64 users' histories to Feast on SQLite; one by one, against one micro-batch."""
    from onepiece.events.history import HistoryUpdate, MemoryUpdate
    from onepiece.events.interactions import Interactions
    from onepiece.features.feast_settings import FeatureStoreSettings
    from onepiece.features.feast_store import FeastStore

    num_users, num_events, at_ms = 64, 64, 1_500_000_000_000
    past = Interactions(
        item_ids=tuple(f"item-{number}" for number in range(num_events)),
        actions=(1,) * num_events,
        at_ms=tuple(range(at_ms, at_ms + num_events)),
    )
    with TemporaryDirectory() as folder:
        store = FeastStore.create(
            Path("feature_repo"), FeatureStoreSettings(folder=Path(folder) / "store")
        )

        versions = itertools.count(num_events)

        def newer() -> list[HistoryUpdate]:
            """What is not newer is not written."""
            version, instant_ms = next(versions), at_ms + num_events
            memories = {"milk": MemoryUpdate(instant_ms, past, num_events=version)}
            return [
                HistoryUpdate(f"user-{number}", instant_ms, past, memories, num_events=version)
                for number in range(num_users)
            ]

        def one_by_one() -> None:
            for update in newer():
                store.write_histories([update])

        baseline_s, ours_s = _take_turns(
            one_by_one, lambda: store.write_histories(newer()), num_rounds=8
        )
        store.close()
    return BenchResult(
        "history-writes",
        baseline_s / ours_s,
        baseline_s * 1e3 / num_users,
        ours_s * 1e3 / num_users,
        "ms a user",
        {"users": num_users, "events_per_history": num_events, "online_store": "sqlite"},
    )


def bench_online_read() -> BenchResult:
    """Reads a request's features, the median; bare from Redis, against decoded by our store."""
    from onepiece.bench_online import time_reads

    return _of_figures("online-read", "ms", time_reads())


def bench_online_write() -> BenchResult:
    """Writes users' states to Redis, CPU time of this process; bare HSETs, against our store."""
    from onepiece.bench_online import time_writes

    return _of_figures("online-write", "us a row", time_writes())


def bench_online_memory() -> BenchResult:
    """Fills Redis with 20,000 users; the bytes of their values, against the memory they take."""
    from onepiece.bench_online import weigh_users

    return _of_figures("online-memory", "bytes a user", weigh_users())


def bench_history_throughput() -> BenchResult:
    """Folds a backlog from Kafka into Redis, us an event; bare kafka-python, against ours."""
    from onepiece.bench_stream import time_throughput

    return _of_figures("history-throughput", "us an event", time_throughput())


def bench_freshness() -> BenchResult:
    """Follows clicks at 1,000/s from being sent to being in the row that is served."""
    from onepiece.bench_stream import time_freshness

    return _of_figures("freshness", "ms", time_freshness())


def bench_collector() -> BenchResult:
    """Appends events on a real Kafka; a bare producer, against REST requests of 100."""
    from onepiece.simulation import collector_bench as bench

    with TemporaryDirectory() as folder:
        figures = bench.measure_collector(Path("build/kafka-libs"), Path(folder))
    return BenchResult(
        "collector",
        figures.bare_us / figures.collector_us,
        figures.bare_us,
        figures.collector_us,
        "us an event",
        {
            "request_p50_ms": f"{figures.p50_ms:.1f}",
            "request_p99_ms": f"{figures.p99_ms:.1f}",
            "events_per_second": round(1e6 / figures.collector_us),
            "events_per_request": bench.BATCH_EVENTS,
            "callers": bench.NUM_CALLERS,
            "rounds": bench.NUM_ROUNDS,
        },
    )


def bench_anchor_changes() -> BenchResult:
    """Computes anchors after two seconds' events; of all queries, against of those that changed."""
    from onepiece.bench_anchors import time_changes

    return _of_figures("anchor-changes", "ms", time_changes())


def bench_anchor_backlog() -> BenchResult:
    """Counts a backlog from Kafka for anchors, us an event; bare kafka-python, against ours."""
    from onepiece.bench_anchors import time_backlog

    return _of_figures("anchor-backlog", "us an event", time_backlog())


def bench_anchor_freshness() -> BenchResult:
    """Follows clicks at 1,000/s from being sent to being in the anchors that are served."""
    from onepiece.bench_anchors import time_anchor_freshness

    return _of_figures("anchor-freshness", "s", time_anchor_freshness())


def bench_item_freshness() -> BenchResult:
    """Follows price changes at 100/s from being sent to being in the table that is served."""
    from onepiece.bench_items import time_item_freshness

    return _of_figures("item-freshness", "s", time_item_freshness())


def bench_as_of_join() -> BenchResult:
    """Joins 100,000 questions with features as they were; by some thousand, against by buckets."""
    from onepiece.bench_as_of import time_join

    return _of_figures("as-of-join", "s", time_join(num_users=5_000, num_questions=100_000))


def bench_as_of_memory() -> BenchResult:
    """Joins 1,000,000 questions; the peak memory for a tenth of them, against that for all."""
    from onepiece.bench_as_of import weigh_join

    figures = weigh_join(num_users=20_000, num_questions=1_000_000)
    return _of_figures("as-of-memory", "MiB", figures)


def bench_serving_capacity() -> BenchResult:
    """Sizes servers: CPU ms of a request; the bare model, against a page over gRPC."""
    from onepiece.bench_serving import Load, measure_capacity

    return _of_figures("serving-capacity", "ms of CPU", measure_capacity(Load()))


BENCHMARKS: Mapping[str, Callable[[], BenchResult]] = {
    "shared-context": bench_shared_context,
    "one-encode": bench_one_encode,
    "context-parts": bench_context_parts,
    "history-writes": bench_history_writes,
    "online-read": bench_online_read,
    "online-write": bench_online_write,
    "online-memory": bench_online_memory,
    "history-throughput": bench_history_throughput,
    "freshness": bench_freshness,
    "collector": bench_collector,
    "anchor-changes": bench_anchor_changes,
    "anchor-backlog": bench_anchor_backlog,
    "anchor-freshness": bench_anchor_freshness,
    "item-freshness": bench_item_freshness,
    "as-of-join": bench_as_of_join,
    "as-of-memory": bench_as_of_memory,
    "serving-capacity": bench_serving_capacity,
}
"""Name -> benchmark; the docstring's first line is its help."""


def _of_figures(name: str, unit: str, figures: "Figures") -> BenchResult:
    baseline, ours = figures.baseline, figures.ours
    return BenchResult(
        name, baseline / ours, baseline, ours, unit, figures.settings, figures.others
    )


def _take_turns(
    baseline: Callable[[], None], ours: Callable[[], None], *, num_rounds: int = NUM_ROUNDS
) -> tuple[float, float]:
    """Times both alternately, after one untimed turn each, and returns their medians."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(num_rounds + 1):
        for taken, run in zip(times, (baseline, ours), strict=True):
            start_s = time.perf_counter()
            run()
            if number:
                taken.append(time.perf_counter() - start_s)
    return statistics.median(times[0]), statistics.median(times[1])


def _model(mask: str) -> "OnePiece":
    """Makes a model of the demo's size with random weights: speed does not depend on them."""
    import torch

    from onepiece.context.recipe import ContextRecipe
    from onepiece.models.onepiece import OnePiece
    from onepiece.models.recipe import OnePieceRecipe

    torch.manual_seed(0)
    recipe = OnePieceRecipe.model_validate({"mask": mask})
    model = OnePiece(recipe, context=ContextRecipe(), vocabulary=_vocabulary())
    return model.eval()


def _vocabulary() -> "Vocabulary":
    from onepiece.context.vocabulary import build_vocabulary
    from onepiece.events.catalogue import Catalogue

    item_ids = tuple(f"item-{number:04d}" for number in range(1_000))
    labels = tuple(f"label-{number % 20}" for number in range(1_000))
    catalogue = Catalogue(item_ids, labels, labels, labels, labels, labels, labels)
    return build_vocabulary(catalogue, query_ids=["milk"], order_counts={})


def _batch(*, num_candidates: int) -> "ContextBatch":
    from onepiece.context.batching import collate

    return collate([_context(num_candidates=num_candidates)])


def _context(*, num_candidates: int) -> "Context":
    """Builds one request with a full history, anchors and candidates."""
    import numpy as np

    from onepiece.context.builder import build_context
    from onepiece.context.recipe import ContextRecipe
    from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
    from onepiece.events.anchors import Anchors
    from onepiece.events.interactions import Interactions
    from onepiece.features.store import Signals

    vocabulary = _vocabulary()
    as_of_ms = 1_500_000_000_000
    draws = np.random.default_rng(0)

    def some(count: int) -> tuple[str, ...]:
        chosen = draws.choice(len(vocabulary.item_ids), count, replace=False)
        return tuple(vocabulary.item_ids[row] for row in chosen)

    def past(count: int) -> Interactions:
        instants = tuple(range(as_of_ms - count, as_of_ms))
        return Interactions(item_ids=some(count), actions=(3,) * count, at_ms=instants)

    features = draws.random((num_candidates, len(CANDIDATE_FEATURES)), dtype=np.float32)
    request = ContextRequest(
        user_id="user",
        query_id="milk",
        store_id="store",
        as_of_ms=as_of_ms,
        signals=Signals(
            recent=past(64), memory=past(96), anchors=Anchors(some(10), some(10), some(10))
        ),
        candidates=Candidates(some(num_candidates), features),
    )
    return build_context(request, ContextRecipe(), vocabulary)


def _settings(model: "OnePiece", batch: "ContextBatch") -> dict[str, str | int]:
    recipe = model.recipe
    return {
        "width": recipe.width,
        "layers": recipe.num_layers,
        "context_tokens": int(batch.token_mask.sum()),
        "candidates": int(batch.candidate_mask.sum()),
        "group_size": recipe.group_size,
        "reasoning_steps": recipe.num_ranking_steps,
        "threads": 1,
        "rounds": NUM_ROUNDS,
    }
