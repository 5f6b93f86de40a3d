"""KServe's protocols over the pipeline: REST v1 and v2, gRPC v2, on the ports of our own doors."""

import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys

import grpc
import httpx
import numpy as np
import pytest

from onepiece.serving.client import GrpcClient
from onepiece.serving.schemas import Answer, RecommendRequest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def host(start_host, world):
    return start_host("serving", "kserve", "--release", world / "release", "--drain-delay-s", 3)


@pytest.fixture
def fields(world_module):
    return world_module.request_fields(count=3)


@pytest.fixture
def expected(host, fields):
    """What our own door answers."""
    return httpx.post(f"{host.http_url}/v1/recommend", json=fields, timeout=30).content


def v2_call(*requests: dict[str, object]) -> dict[str, object]:
    data = [json.dumps(request) for request in requests]
    return {
        "inputs": [{"name": "request", "datatype": "BYTES", "shape": [len(data)], "data": data}]
    }


def rounded(answer: dict[str, object]) -> dict[str, object]:
    """Answers of requests that were computed together differ in the last digits."""
    scores = [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in it.items()}
        for it in answer["items"]
    ]
    return answer | {"items": scores}


def test_v1_predicts_each_instance(host, fields, expected):
    instances = [fields, {**fields, "request_id": "r2"}]

    answer = httpx.post(
        f"{host.http_url}/v1/models/onepiece:predict", json={"instances": instances}, timeout=30
    )

    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert rounded(first) == rounded(json.loads(expected))
    assert rounded(second) == rounded(first) | {"request_id": "r2"}


@pytest.mark.parametrize("call_id", [None, "c1"])
def test_v2_answers_with_our_own_doors_bytes(host, fields, expected, call_id):
    call = v2_call(fields) | ({"id": call_id} if call_id else {})

    answer = httpx.post(f"{host.http_url}/v2/models/onepiece/infer", json=call, timeout=30)

    assert answer.status_code == 200
    body = answer.json()
    assert body["id"] == call_id if call_id else len(body["id"]) == 36
    [output] = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("answer", "BYTES", [1])
    assert [element.encode() for element in output["data"]] == [expected]


def test_v2_answers_each_element(host, fields, expected):
    call = v2_call(*({**fields, "request_id": f"r{place}"} for place in range(20)))

    answer = httpx.post(f"{host.http_url}/v2/models/onepiece/infer", json=call, timeout=30)

    [output] = answer.json()["outputs"]
    answers = [rounded(json.loads(element)) for element in output["data"]]
    assert answers == [
        rounded(json.loads(expected)) | {"request_id": f"r{place}"} for place in range(20)
    ]


def test_v2_metadata_describe_what_is_sent(host):
    metadata = httpx.get(f"{host.http_url}/v2/models/onepiece", timeout=30).json()

    assert metadata["inputs"] == [{"name": "request", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "answer", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize("is_raw", [False, True])
def test_grpc_v2_answers_with_our_own_doors_bytes(host, fields, expected, is_raw):
    from kserve import InferInput, InferRequest, InferResponse
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    tensor = InferInput("request", [1], "BYTES")
    packed = np.array([json.dumps(fields).encode()], dtype=np.object_)
    tensor.set_data_from_numpy(packed, binary_data=is_raw)
    call = InferRequest("onepiece", [tensor]).to_grpc()
    assert bool(call.raw_input_contents) == is_raw

    with grpc.insecure_channel(host.grpc_target) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(call, timeout=30)

    [output] = InferResponse.from_grpc(answer).outputs
    assert list(output.as_numpy()) == [expected]
    assert answer.id


def test_our_own_grpc_service_is_on_the_same_port(host, fields, expected):
    with GrpcClient(host.grpc_target) as client:
        answer = client.recommend(RecommendRequest(**fields))

    assert answer == Answer.model_validate_json(expected)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("v1/models/onepiece:predict", "{", 400, "Unrecognized request format"),
        ("v1/models/onepiece:predict", '{"instances": 3}', 400, 'no list "instances"'),
        ("v1/models/onepiece:predict", '{"instances": []}', 400, "give 1 to 256"),
        ("v1/models/onepiece:predict", '{"instances": [{}]}', 400, "request 0: "),
        ("v1/models/other:predict", '{"instances": [{}]}', 404, "other"),
        ("v2/models/other/infer", json.dumps(v2_call({})), 404, "other"),
        ("v2/models/onepiece/infer", "{", 400, "invalid request"),
        ("v2/models/onepiece/infer", '{"inputs": 3}', 400, "inputs"),
        ("v2/models/onepiece/infer", '{"inputs": []}', 400, "one input 'request'"),
        ("v2/models/onepiece/infer", json.dumps(v2_call({"count": 0})), 400, "request 0: "),
        ("v2/models/onepiece/infer", " " * 1_500_000, 413, "longer than 1048576 bytes"),
        ("v2/repository/models/onepiece/unload", "", 400, "the one model of its release"),
        ("v2/nothing", "", 404, "POST /v2/nothing"),
    ],
)
def test_a_wrong_call_is_refused_as_the_protocols_prescribe(host, path, body, status, words):
    answer = httpx.post(
        f"{host.http_url}/{path}",
        content=body,
        headers={"content-type": "application/json"},
        timeout=30,
    )

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


def test_one_wrong_request_of_a_call_fails_it_and_is_named(host, fields):
    answer = httpx.post(
        f"{host.http_url}/v1/models/onepiece:predict",
        json={"instances": [fields, {**fields, "retriever": "best"}]},
        timeout=30,
    )

    assert answer.status_code == 400
    assert "'best'" in answer.json()["error"]


def test_a_wrong_tensor_is_an_invalid_argument_over_grpc(host):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as v2
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    with grpc.insecure_channel(host.grpc_target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        calls = {
            "shape": v2.ModelInferRequest(
                model_name="onepiece",
                inputs=[{"name": "request", "datatype": "BYTES", "shape": [3]}],
            ),
            "name": v2.ModelInferRequest(model_name="onepiece"),
        }
        for call in calls.values():
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(call, timeout=30)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "send one input 'request'" in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(v2.ModelInferRequest(model_name="other"), timeout=30)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelUnload(
                v2.RepositoryModelUnloadRequest(model_name="onepiece"), timeout=30
            )
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_changed_byte_of_the_release_stops_the_start(world, tmp_path):
    broken = tmp_path / "release"
    shutil.copytree(world / "release", broken)
    table = next((broken / "item_tables").iterdir())
    table.write_bytes(table.read_bytes()[:-1] + b"?")

    ended = subprocess.run(
        [sys.executable, "-m", "onepiece.cli", "serving", "kserve", "--release", broken],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "fetch the release again" in ended.stderr


def test_no_line_is_logged_for_a_caller_s_fault(host):
    httpx.post(f"{host.http_url}/v2/models/onepiece/infer", json={"inputs": []}, timeout=30)

    assert host.log.read_text() == ""


def test_while_it_drains_every_probe_says_no_and_calls_are_answered(host, fields):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as v2
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    assert importlib.metadata.version("kserve").startswith("0.21")
    probes = ("v1/health", "v2/health/ready", "v1/models/onepiece", "v2/models/onepiece/ready")
    before = [httpx.get(f"{host.http_url}/{probe}", timeout=30).status_code for probe in probes]
    channel = grpc.insecure_channel(host.grpc_target)
    stub = GRPCInferenceServiceStub(channel)
    was_ready = stub.ServerReady(v2.ServerReadyRequest(), timeout=30).ready

    host.process.send_signal(signal.SIGTERM)
    while httpx.get(f"{host.http_url}/v1/health", timeout=30).status_code == 200:
        pass
    after = [httpx.get(f"{host.http_url}/{probe}", timeout=30).status_code for probe in probes]
    is_ready = stub.ServerReady(v2.ServerReadyRequest(), timeout=30).ready
    is_model_ready = stub.ModelReady(v2.ModelReadyRequest(name="onepiece"), timeout=30).ready
    live = httpx.get(f"{host.http_url}/v2/health/live", timeout=30)
    answer = httpx.post(
        f"{host.http_url}/v1/models/onepiece:predict", json={"instances": [fields]}, timeout=30
    )
    channel.close()

    assert before == [200] * 4
    assert after == [503] * 4
    assert (was_ready, is_ready, is_model_ready) == (True, False, False)
    assert live.status_code == answer.status_code == 200
    assert answer.headers["connection"] == "close"
    assert host.process.wait(30) == 0
