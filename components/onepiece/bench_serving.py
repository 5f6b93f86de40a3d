"""Times and weighs one server; `bench.py` prints what it finds.

The server is `onepiece serving kserve`, a process of its own that has one core, with one thread of
torch. Whoever asks it has the other cores, as has Redis, where its features are. A core that others
use as well answers less by the clock, so requests are counted by the server's CPU time, too.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch

from onepiece.bench_online import Figures
from onepiece.bench_release import (
    NUM_CANDIDATES,
    NUM_STORES,
    NUM_USERS,
    load_batches,
    synthetic_requests,
    write_synthetic_release,
)
from onepiece.bench_shoppers import ITEMS_PER_CATEGORY, running_redis
from onepiece.errors import Unavailable
from onepiece.features.redis_settings import PREFIX as REDIS
from onepiece.features.redis_settings import RedisSettings
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.serving.client import GrpcClient, HttpClient, ServingClient
from onepiece.serving.schemas import PRE_RANK, RECOMMEND, RETRIEVE, Answer, AnyRequest
from onepiece.simulation.demo_processes import ANSWER_TIMEOUT_S, PATIENT

METHODS = (RECOMMEND, RETRIEVE, PRE_RANK)
SEED = 0
"""Of the requests."""
MIB = 2**20
NUM_FORWARD = 50
"""Requests of a round that the bare model reads."""
_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked."""

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Items of the shops whose servers are weighed."""
    asked_size: int = 100_000
    """The one of them that is asked."""
    num_rounds: int = 5
    num_alone: int = 100
    """Requests of a round that come one after the other, for each door and method."""
    num_together: int = 300
    """Requests of a round that several callers send."""
    num_callers: int = 8


@dataclass(frozen=True, slots=True)
class _Server:
    """A running server."""

    pid: int
    start_s: float
    """From its start until it says that it is ready."""
    clients: Mapping[str, ServingClient]
    """By door."""
    release: Path
    redis: RedisSettings


@dataclass(frozen=True, slots=True)
class _Asked:
    """What some requests of one door and method took."""

    times_s: tuple[float, ...]
    """Of each request, as its caller sees it."""
    wall_s: float
    cpu_s: float
    """Of the server."""


def measure_capacity(load: Load) -> Figures:
    """Weighs a server of each size, and asks one of them; the bare model first in each round."""
    resident: dict[int, float] = {}
    others: dict[str, float] = {}
    cores = sorted(os.sched_getaffinity(0))
    with _pinned(set(cores[1:] or cores)):
        for num_items in load.sizes:
            with (
                running_redis() as redis,
                TemporaryDirectory() as folder,
                _running_server(Path(folder), num_items, redis, core=cores[0]) as server,
            ):
                if num_items == load.asked_size:
                    others |= _rounds(server, num_items, load, core=cores[0])
                else:
                    _ask_all(server, num_items, num_requests=10)
                resident[num_items] = _memory_bytes(server.pid, "VmRSS")
                others |= {
                    f"resident_mib_{num_items}_items": resident[num_items] / MIB,
                    f"peak_mib_{num_items}_items": _memory_bytes(server.pid, "VmHWM") / MIB,
                    f"start_s_{num_items}_items": server.start_s,
                }
    bytes_per_item, base_bytes = np.polyfit(list(resident), list(resident.values()), 1).tolist()
    others |= {
        "fitted_base_mib": base_bytes / MIB,
        "fitted_bytes_an_item": bytes_per_item,
        "fitted_gb_a_million_items": bytes_per_item * 1e6 / 1e9,
    }
    return Figures(
        others["bare_forward_cpu_ms"],
        others["grpc_recommend_alone_cpu_ms"],
        others,
        {
            "weights": "untrained",
            "items": load.asked_size,
            "items_a_category": ITEMS_PER_CATEGORY,
            "candidates": NUM_CANDIDATES,
            "stores": NUM_STORES,
            "users": NUM_USERS,
            "seed": SEED,
            "threads": 1,
            "callers": load.num_callers,
            "rounds": load.num_rounds,
            "requests_a_round": load.num_together,
            "baseline": "one bare forward of the model: retrieval and ranking on one encode",
        },
    )


def _rounds(server: _Server, num_items: int, load: Load, *, core: int) -> dict[str, float]:
    """Asks by every door and method in each round, alone and together."""
    forward_ms: list[float] = []
    alone: dict[str, list[_Asked]] = {}
    together: dict[str, list[_Asked]] = {}
    _ask_all(server, num_items, num_requests=load.num_callers)
    for number in range(load.num_rounds):
        with _pinned({core}):
            forward_ms.append(_in_a_process(_time_forward, server.release, num_items, server.redis))
        for door, client in server.clients.items():
            for method in METHODS:
                seeded = synthetic_requests(method, num_items=num_items, seed=SEED + number)
                for asked, count, callers in (
                    (alone, load.num_alone, 1),
                    (together, load.num_together, load.num_callers),
                ):
                    requests = list(islice(seeded, count))
                    one = _ask(server.pid, partial(client.ask, method), requests, callers)
                    asked.setdefault(f"{door}_{method}", []).append(one)
    found = {
        "bare_forward_cpu_ms": statistics.median(forward_ms),
        "bare_forward_cpu_ms_least": min(forward_ms),
        "bare_forward_cpu_ms_most": max(forward_ms),
    }
    for name, asked_alone in alone.items():
        found |= _figures(name, asked_alone, together[name])
    return found


def _figures(name: str, alone: Sequence[_Asked], together: Sequence[_Asked]) -> dict[str, float]:
    """Takes medians over rounds, and what the rounds differ by."""
    per_s = [len(one.times_s) / one.wall_s for one in together]
    per_cpu_s = [len(one.times_s) / one.cpu_s for one in together]
    found = {
        f"{name}_per_s": statistics.median(per_s),
        f"{name}_per_s_least": min(per_s),
        f"{name}_per_s_most": max(per_s),
        f"{name}_per_cpu_s": statistics.median(per_cpu_s),
        f"{name}_per_cpu_s_least": min(per_cpu_s),
        f"{name}_per_cpu_s_most": max(per_cpu_s),
        f"{name}_alone_cpu_ms": statistics.median(
            one.cpu_s / len(one.times_s) * 1e3 for one in alone
        ),
    }
    for how, rounds in (("alone", alone), ("together", together)):
        times_ms = [taken * 1e3 for one in rounds for taken in one.times_s]
        found |= {f"{name}_{how}_p{at}_ms": float(np.percentile(times_ms, at)) for at in (50, 99)}
    return found


def _ask_all(server: _Server, num_items: int, *, num_requests: int) -> None:
    """Asks by every door and method, so that the server has loaded what it will have."""
    for client in server.clients.values():
        for method in METHODS:
            seeded = synthetic_requests(method, num_items=num_items, seed=SEED)
            _ask(server.pid, partial(client.ask, method), list(islice(seeded, num_requests)), 1)


def _ask(
    pid: int, call: Callable[..., Answer], requests: Sequence[AnyRequest], num_callers: int
) -> _Asked:
    """Asks from some threads, each the next request as soon as it has its answer.

    Raises:
        Unavailable: Another than the model answered: no figure of this would be one.
    """

    def timed(request: AnyRequest) -> float:
        start_s = time.perf_counter()
        answer = call(request)
        taken_s = time.perf_counter() - start_s
        if answer.degraded_by or not answer.items or not answer.model_version:
            raise Unavailable(f"a fallback answered ({answer.degraded_by}); run it once more")
        return taken_s

    with ThreadPoolExecutor(num_callers) as pool:
        start_s, start_cpu_s = time.perf_counter(), _cpu_s(pid)
        times_s = tuple(pool.map(timed, requests))
        return _Asked(times_s, time.perf_counter() - start_s, _cpu_s(pid) - start_cpu_s)


@contextmanager
def _running_server(
    folder: Path, num_items: int, redis: RedisSettings, *, core: int
) -> Iterator[_Server]:
    """Makes a release, in a process that ends with it, and serves it on one core."""
    release = folder / "release"
    _in_a_process(write_synthetic_release, release, num_items, redis)
    command = [sys.executable, "-m", "onepiece.cli", "serving", "kserve", "--json"]
    command += ["--release", str(release), "--http-port=0", "--grpc-port=0", "--drain-delay-s=0"]
    # The model answers however busy the machine is; a fallback would be faster.
    environment = {**os.environ, **PATIENT, f"{REDIS}ADDRESS": redis.address}
    start_s = time.perf_counter()
    with _pinned({core}):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)  # noqa: S603
    with process:
        try:
            assert process.stdout is not None  # noqa: S101 - piped above
            line = process.stdout.readline()
            if not line:
                raise Unavailable(f"the server ended with {process.wait()}; its log is above")
            ready = json.loads(line)
            start_s = time.perf_counter() - start_s
            with (
                HttpClient(ready["http_url"], timeout_s=ANSWER_TIMEOUT_S) as rest,
                GrpcClient(ready["grpc_target"], timeout_s=ANSWER_TIMEOUT_S) as grpc,
            ):
                yield _Server(process.pid, start_s, {"grpc": grpc, "rest": rest}, release, redis)
        finally:
            process.terminate()


def _in_a_process(work: Callable[..., _ResultT], *arguments: object) -> _ResultT:
    """Runs a function in a process of its own, since a process keeps the most that it took."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _time_forward(release: Path, num_items: int, redis: RedisSettings) -> float:
    """Runs the bare model on requests that are tensors already; CPU ms of a request."""
    torch.set_num_threads(1)
    model, batches = load_batches(release, num_items, redis, count=NUM_FORWARD)
    tensors = [
        (context_tensors(batch), candidate_tensors(batch, group_size=model.recipe.group_size))
        for batch in batches
    ]

    def forward() -> None:
        for context, candidates in tensors:
            with torch.inference_mode():
                encoding = model.encode_context(context)
                model.users(encoding)
                model.score_candidates(encoding, candidates)

    forward()
    start_s = time.process_time()
    forward()
    return (time.process_time() - start_s) / len(tensors) * 1e3


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """Has this thread, and what it starts, use some cores until the block ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_bytes(pid: int, name: str) -> float:
    """Resident memory of a process now (VmRSS) or at most so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    raise Unavailable(f"/proc/{pid}/status has no {name}; this needs Linux")
