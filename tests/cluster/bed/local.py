"""A bed as a whole: brought up to a level, found again, looked at, taken down."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bed import network, pods
from bed.build import missing
from bed.certificates import write_certificates
from bed.clients import Cluster
from bed.control_plane import Parts, start_api_server, start_managers
from bed.controllers import start_controllers
from bed.definitions import create_definitions
from bed.gateway import create_gateway_definitions, start_gateway
from bed.pods import start_node
from bed.processes import Processes, found, stop
from onepiece.errors import NotFound, OutputExists, Unavailable

LEVELS = {1: "strict", 2: "control", 3: "pods", 4: "gateway"}
"""What `up` can bring up."""
CONTROL, PODS, GATEWAY = 2, 3, 4
_UP_TIMEOUT_S = 900.0
_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private", "--")
"""Begins a command line whose mounts nobody else sees; they go with its last process."""
VOLUMES_FOLDER = "volumes"
"""Where those folders really are, below the bed's."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Bed:
    """The bed that lives in a folder; there is at most one in each."""

    folder: Path

    @property
    def network(self) -> str:
        """Name of its network namespace."""
        return network.namespace_name(self.folder)

    @property
    def level(self) -> int | None:
        """The level that it is up to; None when it is down, or half up."""
        file = self.folder / "bed.json"
        if not file.exists() or not network.exists(self.network):
            return None
        return int(json.loads(file.read_text())["level"])

    @property
    def cluster(self) -> Cluster:
        """The cluster as its administrator, reached from outside."""
        return Cluster(self._kubeconfig, tuple(network.inside(self.network)))

    @property
    def processes(self) -> Processes:
        """What runs."""
        return Processes(self.folder)

    @property
    def _kubeconfig(self) -> Path:
        return self.folder / "pki" / "admin.kubeconfig"

    def reason_it_cannot_run(self, level: int) -> str | None:
        """Says why a level cannot be brought up on this machine, or None."""
        reason = network.reason_it_cannot_run()
        if reason is not None:
            return reason
        if shutil.which("etcd") is None:
            return "etcd is not installed (apt-get install etcd-server)"
        if level >= PODS and (reason := pods.reason_it_cannot_run()) is not None:
            return reason
        try:
            unbuilt = missing(level)
        except NotFound as error:
            return str(error)
        if unbuilt:
            return f"not built: {', '.join(unbuilt)}; run: make cluster-build LEVEL={level}"
        return None

    def up(self, level: int) -> None:
        """Brings the bed up, or leaves nothing of it.

        Raises:
            NotFound: Something that the level needs is missing.
            OutputExists: A bed is up here already.
            Unavailable: A part did not become ready.
        """
        reason = self.reason_it_cannot_run(level)
        if reason is not None:
            raise NotFound(f"level {level} cannot run: {reason}")
        if self.level is not None:
            raise OutputExists(
                f"a bed of level {self.level} is up in {self.folder}; use it or take it down"
            )
        self.down()
        self.folder.mkdir(parents=True)
        network.create(self.network)
        try:
            if level >= PODS:
                network.add_node(self.network)
            self._start_inside(level)
        except BaseException:
            self._stop()
            raise
        (self.folder / "bed.json").write_text(json.dumps({"level": level}))

    def _start_inside(self, level: int) -> None:
        """Runs `start` in the namespace, so that all that it starts is there too."""
        command = [*network.inside(self.network), *_OWN_MOUNTS, sys.executable, "-m", "bed"]
        command += ["start", "--level", str(level), "--folder", str(self.folder)]
        done = subprocess.run(
            command, env=os.environ | _python_path(), timeout=_UP_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise Unavailable(f"level {level} did not come up; logs are in {self.folder / 'logs'}")

    def start(self, level: int, *, report: Report) -> None:
        """Starts every part of a level; called in the namespace, by `up`.

        Raises:
            NotFound: etcd is not installed.
            Unavailable: A part did not become ready.
            CommandFailed: The API server refused an object that the bed is made of.
        """
        began_s = time.monotonic()
        parts = Parts(self.processes, Cluster(self._kubeconfig))
        _keep(pods.VOLUMES, self.folder / VOLUMES_FOLDER)
        if level >= PODS:
            for number, folder in enumerate(pods.SYSTEM_FOLDERS):
                _keep(folder, self.folder / "system" / str(number))
        steps: list[tuple[int, str, Callable[[], None]]] = [
            (1, "certificates", lambda: write_certificates(parts.certificates)),
            (1, "API server", lambda: start_api_server(parts)),
            (1, "definitions", lambda: create_definitions(parts.cluster)),
            # Not before: managers look at every new definition, which doubles the time.
            (2, "managers", lambda: start_managers(parts)),
            (
                2,
                "controllers and nodes",
                lambda: start_controllers(parts, with_invented_nodes=level == CONTROL),
            ),
            (GATEWAY, "gateway's definitions", lambda: create_gateway_definitions(parts.cluster)),
            (PODS, "a real node", lambda: start_node(parts, level)),
            (GATEWAY, "gateway", lambda: start_gateway(parts)),
        ]
        for needed, what, step in steps:
            if needed <= level:
                step()
                report(f"{time.monotonic() - began_s:5.1f} s  {what}")

    def down(self) -> None:
        """Ends all that was started and removes the folder; a bed that is down stays down."""
        self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self) -> None:
        """Ends every process, newest first, and removes the namespace; the logs stay."""
        self.processes.stop_all()
        pods.end_pods(self.folder)
        # Children that outlived their parent, and whatever a killed `up` had no time to note.
        for pid in network.process_ids(self.network):
            stop(found("left behind", pid))
        network.delete(self.network)
        if network.has_beds():
            # To remove a folder would take away the mount that another bed has on it.
            return
        for folder in (pods.VOLUMES, *pods.SYSTEM_FOLDERS):
            # Only what is empty, so nobody's but the bed's.
            with suppress(OSError):
                folder.rmdir()

    def status(self) -> str:
        """Returns a table of what was started: process id, memory, whether it runs."""
        lines = [f"{'part':24} {'pid':>8} {'MB':>6}  state"]
        total = 0
        for part in self.processes.all():
            total += part.memory_bytes
            state = "runs" if part.is_running else "ended"
            lines.append(f"{part.name:24} {part.pid:8} {part.memory_bytes / 1e6:6.0f}  {state}")
        lines.append(f"{'all':24} {'':8} {total / 1e6:6.0f}")
        level = self.level
        lines.append("down" if level is None else f"up, level {level} ({LEVELS[level]})")
        return "\n".join(lines)


def _keep(system: Path, folder: Path) -> None:
    """Puts what is written to a folder of the system into the bed's, where `down` removes it."""
    for path in (folder, system):
        path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(folder), str(system)], check=True)


def _python_path() -> dict[str, str]:
    """Lets a child import what this process can."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
