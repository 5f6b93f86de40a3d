"""Answers KubeRay as a Ray cluster's dashboard would, for pods that kwok only pretends to run.

Every address of kwok's pods is this machine, so one process answers for all of them; what was
deployed to one address is known there alone. Run as a program; it imports nothing of ours.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

PORTS = (8265, 8000, 52365)
"""The dashboard, Serve's HTTP proxy, and the agent of each node."""
JOB_S = 3.0
"""How long a job seems to run."""


class FakeRay(BaseHTTPRequestHandler):
    """One request to any of the ports."""

    protocol_version = "HTTP/1.1"
    deployed: ClassVar[dict[str, dict[str, Any]]] = {}
    """What was put to each address: a Serve config."""
    jobs: ClassVar[dict[tuple[str, str], float]] = {}
    """When each job was first asked for, on the monotonic clock in seconds."""
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        """Says how the applications or a job are."""
        path = self.path.split("?")[0].rstrip("/")
        if path == "/api/serve/applications":
            self._answer(_applications(self.deployed.get(self._address, {})))
        elif path.startswith("/api/jobs/"):
            self._answer(self._job(path.rpartition("/")[2]))
        elif path == "/api/jobs":
            self._answer([self._job(job) for address, job in self.jobs if address == self._address])
        else:
            self._answer("success")

    def do_PUT(self) -> None:
        """Takes a Serve config."""
        body = json.loads(self._body() or "{}")
        with self.lock:
            self.deployed[self._address] = body
        self._answer({})

    def do_POST(self) -> None:
        """Takes a job."""
        self._body()
        self._answer({"submission_id": "fake", "job_id": "fake"})

    def do_DELETE(self) -> None:
        """Forgets whatever was named."""
        self._answer({})

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps one line a request, with the address that was asked."""
        print(self._address, format % args, flush=True)  # noqa: T201

    @property
    def _address(self) -> str:
        return str(self.connection.getsockname()[0])

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _job(self, job_id: str) -> dict[str, Any]:
        now_s = time.monotonic()
        with self.lock:
            began_s = self.jobs.setdefault((self._address, job_id), now_s)
        is_done = now_s - began_s > JOB_S
        return {
            "job_id": "01000000",
            "submission_id": job_id,
            "type": "SUBMISSION",
            "status": "SUCCEEDED" if is_done else "RUNNING",
            "message": "",
            "start_time": 1,
            "end_time": 2 if is_done else 0,
        }

    def _answer(self, body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _applications(config: dict[str, Any]) -> dict[str, Any]:
    """Says that all that was put runs."""
    found = {}
    for application in config.get("applications", []):
        name = application.get("name", "default")
        deployments = [one["name"] for one in application.get("deployments", [])] or ["app"]
        found[name] = {
            "name": name,
            "route_prefix": application.get("route_prefix", "/"),
            "status": "RUNNING",
            "message": "",
            "last_deployed_time_s": 1.0,
            "deployments": {
                each: {"name": each, "status": "HEALTHY", "message": ""} for each in deployments
            },
        }
    return {"applications": found}


def main() -> None:
    """Serves for ever on every port."""
    # All addresses: those of kwok's pods are local in the bed's network namespace, and only there.
    servers = [ThreadingHTTPServer(("0.0.0.0", port), FakeRay) for port in PORTS]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
