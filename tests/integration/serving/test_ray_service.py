"""What a RayService does: Ray Serve deploys the application by its import path and arguments."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

DEPLOY = """
import json, os, sys, time
from pathlib import Path
from onepiece.serving.ray_environment import ray_environment
from onepiece.serving.ray_guard import guarded_folder

release, http_port, grpc_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with guarded_folder() as folder:
    os.environ.update(ray_environment(folder))
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema
    from onepiece.errors import OnePieceError
    from onepiece.serving.client import GrpcClient, HttpClient
    from onepiece.serving.paths import warm_up_request
    from onepiece.serving.ray_app import GRPC_SERVICER

    def deploy(**args):
        config = {
            "applications": [
                {
                    "name": "onepiece",
                    "route_prefix": "/",
                    "import_path": "onepiece.serving.ray_app:build_application",
                    "args": args,
                }
            ]
        }
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))
        while True:
            application = serve.status().applications.get("onepiece")
            if application and application.status in ("RUNNING", "DEPLOY_FAILED"):
                return application
            time.sleep(0.2)

    ray.init(
        address="local", _temp_dir=str(folder), include_dashboard=False, log_to_driver=False,
        object_store_memory=100 * 1024 * 1024,
    )
    try:
        serve.start(
            http_options={"host": "127.0.0.1", "port": http_port},
            grpc_options={"port": grpc_port, "grpc_servicer_functions": [GRPC_SERVICER]},
        )
        said = {"wrong": deploy(release=release, realease="x").message}
        application = deploy(release=release, num_cpus=0.1, settings={"deadline_s": 20.0})
        said["status"] = application.status
        request = warm_up_request(Path(release) / "item_tables")
        with HttpClient(f"http://127.0.0.1:{http_port}", timeout_s=30) as http, GrpcClient(
            f"127.0.0.1:{grpc_port}", timeout_s=30
        ) as rpc:
            for client in (http, rpc):
                for _ in range(300):
                    try:
                        answer = client.recommend(request)
                        break
                    except OnePieceError:
                        time.sleep(0.2)
                said[type(client).__name__] = answer.model_dump(mode="json")
    finally:
        serve.shutdown()
        ray.shutdown()
print(json.dumps(said))
"""


def test_a_configuration_deploys_a_release_and_a_wrong_argument_is_named(world, unused_ports):
    http_port, grpc_port = unused_ports(2)

    ended = subprocess.run(
        [sys.executable, "-c", DEPLOY, world / "release", str(http_port), str(grpc_port)],
        stdout=subprocess.PIPE,
        timeout=360,
        env=os.environ | {"TMPDIR": "/tmp"},
    )

    assert ended.returncode == 0
    said = json.loads(ended.stdout.splitlines()[-1])
    assert "realease" in said["wrong"]
    assert said["status"] == "RUNNING"
    assert said["HttpClient"]["items"]
    assert said["HttpClient"] == said["GrpcClient"]
