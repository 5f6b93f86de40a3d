"""What is asked over REST and over gRPC, good and bad, gets the same answer."""

import json

import grpc
import pytest

from onepiece.errors import FeatureStoreUnavailable
from onepiece.serving import onepiece_pb2 as pb
from onepiece.serving.messages import SERVICE_NAME
from onepiece.serving.schemas import PreRankRequest, RecommendRequest, RetrieveRequest

METHODS = {
    "retrieve": ("Retrieve", RetrieveRequest),
    "prerank": ("PreRank", PreRankRequest),
    "recommend": ("Recommend", RecommendRequest),
}


def post(doors, method, fields):
    return doors.http.post(f"/v1/{method}", content=json.dumps(fields))


def call(doors, method, payload):
    """Calls a gRPC method with raw bytes; returns the raw answer or the error."""
    rpc = doors.channel.unary_unary(f"/{SERVICE_NAME}/{METHODS[method][0]}")
    try:
        return rpc(payload, timeout=30)
    except grpc.RpcError as error:
        return error


def fields_of(world_module, method, **changes):
    given = {"item_ids": ["milk-01", "milk-02"]} if method == "prerank" else {}
    return world_module.request_fields(**given) | changes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strategy", ["popular", "repeat", "onepiece"])
def test_both_doors_give_equal_answers(doors, world_module, method, strategy):
    names = {"retrieve": ["retriever"], "prerank": ["ranker"]}.get(method, ["retriever", "ranker"])
    fields = fields_of(world_module, method, **dict.fromkeys(names, strategy))
    request = METHODS[method][1](**fields)
    name = {"prerank": "pre_rank"}.get(method, method)

    over_rest = getattr(doors.http_client, name)(request)
    over_grpc = getattr(doors.grpc_client, name)(request)

    assert over_rest == over_grpc
    assert over_rest.items
    assert post(doors, method, fields).json() == json.loads(over_rest.model_dump_json())


BAD_FIELDS = [
    ("recommend", {"user_id": ""}, 400, "user_id"),
    ("recommend", {"user_id": "a\nb"}, 400, "user_id"),
    ("recommend", {"user_id": "x" * 10_000}, 400, "user_id"),
    ("recommend", {"query_id": " "}, 400, "query_id"),
    ("recommend", {"as_of_ms": 1_500_000_000}, 400, "milliseconds, not seconds"),
    ("recommend", {"count": 0}, 400, "count"),
    ("recommend", {"count": -1}, 400, "count"),
    ("recommend", {"count": 1_001}, 400, "count"),
    ("recommend", {"retriever": "best"}, 400, "give one of onepiece, popular, repeat"),
    ("recommend", {"ranker": "best"}, 400, "give one of onepiece, popular, repeat"),
    ("retrieve", {"retriever": "best"}, 400, "give one of onepiece, popular, repeat"),
    ("recommend", {"as_of_ms": 1_400_000_000_000}, 404, "item table"),
    ("prerank", {"item_ids": []}, 400, "item_ids"),
    ("prerank", {"item_ids": ["a\nb"]}, 400, "item_ids"),
    ("prerank", {"item_ids": ["x" * 10_000]}, 400, "item_ids"),
    ("prerank", {"item_ids": [str(n) for n in range(10_000)]}, 413, "at most 1000"),
]
GRPC_STATUS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize(("method", "changes", "status", "said"), BAD_FIELDS)
def test_a_bad_request_gets_the_same_words_at_both_doors(
    doors, world_module, method, changes, status, said
):
    fields = fields_of(world_module, method, **changes)
    message = getattr(pb, METHODS[method][1].__name__)(**fields)

    over_rest = post(doors, method, fields)
    over_grpc = call(doors, method, message.SerializeToString())

    problem = over_rest.json()["error"]
    assert over_rest.status_code == status
    assert said in problem["message"]
    assert over_grpc.code().name == GRPC_STATUS[status]
    assert ("onepiece-error-code", problem["code"]) in over_grpc.trailing_metadata()
    assert over_grpc.details() == problem["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"user_id": "u1",}', b"[1]", b"null", b"\xff", b"[" * 50_000, b"NaN"]
)
def test_malformed_json_is_a_bad_request(doors, body):
    response = doors.http.post("/v1/recommend", content=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "InvalidRequest"


def test_an_unknown_field_is_refused_at_both_doors(doors, world_module):
    fields = world_module.request_fields(surprise=1)
    # Field 99 of type string, after a good message: 99 << 3 | 2 as a varint.
    good = pb.RecommendRequest(**world_module.request_fields()).SerializeToString()

    over_rest = post(doors, "recommend", fields)
    over_grpc = call(doors, "recommend", good + b"\x9a\x06\x01x")

    assert over_rest.status_code == 400
    assert "surprise" in over_rest.json()["error"]["message"]
    assert over_grpc.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no field numbered 99" in over_grpc.details()


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"{}", b"\x00"])
def test_bytes_that_are_no_message_are_an_invalid_argument(doors, payload):
    error = call(doors, "recommend", payload)

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "onepiece.v1.RecommendRequest" in error.details()


def test_another_message_is_an_invalid_argument(doors, world_module):
    answer = pb.Answer(request_id="r1", items=[pb.AnswerItem(item_id="a")], as_of_ms=1)

    error = call(doors, "recommend", answer.SerializeToString())

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_no_bytes_are_a_message_without_its_fields(doors):
    error = call(doors, "recommend", b"")

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "user_id: String should have at least 1 character" in error.details()


def test_a_body_over_the_limit_is_too_large_at_both_doors(doors, world_module):
    fields = world_module.request_fields(item_ids=["x" * 128] * 9_000)
    message = pb.PreRankRequest(**fields)

    over_rest = post(doors, "prerank", fields)
    over_grpc = call(doors, "prerank", message.SerializeToString())

    assert over_rest.status_code == 413
    assert over_rest.json()["error"]["code"] == "PayloadTooLarge"
    assert "1048576" in over_rest.json()["error"]["message"]
    assert over_grpc.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1048576" in over_grpc.details()


def test_duplicate_candidates_are_answered_once_and_counted(doors, world_module):
    request = PreRankRequest(**world_module.request_fields(item_ids=("milk-01", "milk-01")))

    answers = [client.pre_rank(request) for client in (doors.http_client, doors.grpc_client)]

    for answer in answers:
        assert [item.item_id for item in answer.items] == ["milk-01"]
        assert answer.num_duplicate_items == 1


def test_unknown_user_and_query_are_served_and_said(doors, world_module):
    request = RecommendRequest(
        **world_module.request_fields(user_id="nobody", query_id="no such thing")
    )

    answers = [client.recommend(request) for client in (doors.http_client, doors.grpc_client)]

    for answer in answers:
        assert (answer.is_known_user, answer.is_known_query) == (False, False)
        assert len(answer.items) == 20


def test_a_request_without_an_instant_is_answered_as_of_the_clock(world, world_module, open_doors):
    doors = open_doors(world.pipeline(), now_ms=world_module.NOW_MS + 7)
    request = RecommendRequest(**world_module.request_fields(as_of_ms=None))

    assert doors.http_client.recommend(request).as_of_ms == world_module.NOW_MS + 7
    assert doors.grpc_client.recommend(request).as_of_ms == world_module.NOW_MS + 7


def test_a_replay_refuses_a_request_without_an_instant(world, world_module, open_doors):
    doors = open_doors(world.pipeline(), is_as_of_required=True)
    fields = world_module.request_fields()
    del fields["as_of_ms"]

    response = post(doors, "recommend", fields)
    error = call(doors, "recommend", pb.RecommendRequest(**fields).SerializeToString())

    assert response.status_code == 400
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == response.json()["error"]["message"]


def test_a_degraded_answer_is_a_success_that_says_so(world, world_module, open_doors):
    store = world_module.CountingStore(world.memory)
    store.failure = FeatureStoreUnavailable("down")
    doors = open_doors(world.pipeline(store=store))
    request = RecommendRequest(**world_module.request_fields())

    answer = doors.http_client.recommend(request)

    assert answer == doors.grpc_client.recommend(request)
    assert answer.degraded_by == "feature_store_unavailable"


def test_a_bug_is_a_server_error_that_tells_nothing_and_the_next_request_is_answered(
    world, world_module, open_doors, caplog
):
    store = world_module.CountingStore(world.memory)
    store.failure = RuntimeError("secret detail")
    doors = open_doors(world.pipeline(store=store))
    fields = world_module.request_fields()
    payload = pb.RecommendRequest(**fields).SerializeToString()

    over_rest = post(doors, "recommend", fields)
    over_grpc = call(doors, "recommend", payload)
    store.failure = None

    assert over_rest.status_code == 500
    assert over_grpc.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in over_rest.text
    assert "secret" not in over_grpc.details()
    assert over_rest.json()["error"]["message"] == over_grpc.details()
    assert "secret detail" in caplog.text
    assert post(doors, "recommend", fields).status_code == 200


def test_the_server_is_ready_only_after_a_real_request(world, world_module, open_doors):
    store = world_module.CountingStore(world.memory)
    doors = open_doors(world.pipeline(store=store))

    before = doors.http.get("/v1/health")
    doors.run(doors.service.warm_up(RecommendRequest(**world_module.request_fields())))
    after = doors.http.get("/v1/health")

    assert (before.status_code, before.json()) == (503, {"is_ready": False})
    assert (after.status_code, after.json()) == (200, {"is_ready": True})
    assert store.num_reads == 1


def test_the_model_route_names_the_bundle_and_the_recipe(doors, world):
    info = doors.http.get("/v1/model").json()

    assert info["model_version"] == world.bundle.version
    assert info["serving_recipe"]["num_candidates"] == 100


def test_metrics_count_answers_and_refusals(doors, world_module):
    post(doors, "recommend", world_module.request_fields())
    post(doors, "recommend", {})

    text = doors.http.get("/metrics").text

    assert 'onepiece_serving_latency_seconds_count{method="recommend"}' in text
    errors = 'onepiece_serving_errors_total{method="recommend",status="INVALID_ARGUMENT"}'
    assert errors in text
    assert "u1" not in text


def test_an_unknown_route_and_method_are_refused_in_the_same_form(doors):
    missing = doors.http.get("/v1/nothing")
    wrong = doors.http.get("/v1/recommend")

    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NotFound")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "MethodNotAllowed")


def test_the_routes_describe_themselves(doors):
    document = doors.http.get("/openapi.json").json()

    body = document["paths"]["/v1/prerank"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["properties"]["item_ids"]["maxItems"] == 1_000
