"""kubectl and helm, run where the cluster can be reached."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bed.build import program_path
from onepiece.errors import OnePieceError


class CommandFailed(OnePieceError):
    """A command ended with another code than 0; the message is what it said."""


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def warnings(self) -> list[str]:
        """Lines in which the API server warns, such as of a breach of Pod Security."""
        return [line for line in self.err.splitlines() if line.startswith("Warning:")]


@dataclass(frozen=True)
class Cluster:
    """A cluster, and how commands reach it."""

    kubeconfig: Path
    prefix: tuple[str, ...] = ()
    """Begins each command line: enters the bed's network namespace; empty on a user's cluster."""
    is_bed: bool = True
    """False for a cluster that the user named; it is used as it is."""

    def run(
        self, *command: str, text: str | None = None, timeout_s: float = 120.0, check: bool = True
    ) -> Result:
        """Runs any program where the cluster can be reached, with KUBECONFIG set.

        Args:
            command: A program and its arguments; `helm` and `kubectl` are the pinned ones.
            text: Its standard input.
            timeout_s: Longest time it may take.
            check: Whether another exit code than 0 is an error.

        Raises:
            CommandFailed: It failed, and `check` is set.
        """
        program, *arguments = command
        if program in ("helm", "kubectl"):
            program = str(program_path(program))
        done = subprocess.run(
            [*self.prefix, program, *arguments],
            input=text if text is not None else "",
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check and result.code:
            shown = " ".join(command)
            raise CommandFailed(
                f"{shown} ended with {result.code}:\n{(result.err or result.out)[-4000:]}"
            )
        return result

    def kubectl(self, *arguments: str, text: str | None = None, timeout_s: float = 120.0) -> Result:
        """Runs kubectl; `text` is what `-f -` reads."""
        return self.run("kubectl", *arguments, text=text, timeout_s=timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 300.0) -> Result:
        """Runs helm."""
        return self.run("helm", *arguments, timeout_s=timeout_s)

    def python(self, *arguments: str, text: str | None = None, timeout_s: float = 120.0) -> Result:
        """Runs this Python where the cluster can be reached, such as for a client library."""
        return self.run(sys.executable, *arguments, text=text, timeout_s=timeout_s)

    @property
    def environment(self) -> dict[str, str]:
        """What every command finds: the cluster, and helm's files beside the bed's."""
        home = str(self.kubeconfig.parent / "helm")
        own = {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")}
        return {"KUBECONFIG": str(self.kubeconfig), **(own if self.is_bed else {})}
