"""The cluster that the tests of levels 1 to 4 run against."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from bed.__main__ import DEFAULT_FOLDER
from bed.clients import Cluster
from bed.local import CONTROL, Bed

LAST_CI_LEVEL = 2
"""CI runs the levels up to this one: there, a reason not to run is a failure."""


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The user's cluster (TEST_KUBECONFIG), a bed that is up, or a bed for this session."""
    named = os.environ.get("TEST_KUBECONFIG")
    if named:
        yield Cluster(Path(named).resolve(strict=True), is_bed=False)
        return
    level = max(
        mark.args[0] for item in request.session.items for mark in item.iter_markers("level")
    )
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("a checkout has one bed: run its tests by make cluster-test, without -n")
    bed = Bed(DEFAULT_FOLDER)
    if bed.level is not None:
        # A developer's, who will take it down.
        # Level 2 has nodes that are invented, the levels above have a real one instead.
        if bed.level < level or (level == CONTROL < bed.level):
            pytest.fail(f"a bed of level {bed.level} is up and {level} is needed: cluster-down")
        yield bed.cluster
        return
    reason = bed.reason_it_cannot_run(level)
    if reason is not None:
        _cannot_run(level, reason)
    with _ended_in_order():
        bed.up(level)
        try:
            yield bed.cluster
        finally:
            bed.down()


def _cannot_run(level: int, reason: str) -> NoReturn:
    """Skips aloud; in CI only a level that CI does not run may be skipped."""
    said = f"level {level} cannot run: {reason}"
    if os.environ.get("CI") == "true" and level <= LAST_CI_LEVEL:
        pytest.fail(f"{said}; CI runs every test of levels 0 to {LAST_CI_LEVEL}")
    pytest.skip(said)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Takes the bed down also when the session is asked to end by a signal."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def new_namespace(cluster: Cluster) -> Iterator[Callable[[], str]]:
    """Makes namespaces in which Pod Security `restricted` is enforced; they end with the test."""
    made: list[str] = []

    def make() -> str:
        name = f"test-{secrets.token_hex(4)}"
        cluster.kubectl("create", "namespace", name)
        made.append(name)
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        return name

    yield make
    if made:
        cluster.kubectl("delete", "namespace", *made, "--wait=false")


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """One such namespace."""
    return new_namespace()


@pytest.fixture(scope="session")
def shop(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small releases of other weights."""
    folder = tmp_path_factory.mktemp("shop")
    source = repository / "tests/unit/serving/world.py"
    script = repository / "tests/make_world.py"
    subprocess.run([sys.executable, script, source, folder, repository], check=True, timeout=300)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what the tests measured, such as the seconds from `helm install` until ready."""
    measured = [
        (report.nodeid.rpartition("[")[2].rstrip("]"), name, value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if report.when == "call"
    ]
    if measured:
        terminalreporter.section("measured")
    for case, name, value in measured:
        terminalreporter.line(f"{case:24} {name:24} {value}")
