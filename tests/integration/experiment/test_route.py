"""The router as a server, before two real servers with a model each, over a real log."""

import signal
import threading
import time
from collections import Counter

import httpx
import pytest
import yaml

from onepiece.bundle import read_manifest
from onepiece.errors import OnePieceError, Unavailable
from onepiece.events.log import read_events
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.assignment import PlannedAssignment
from onepiece.experiment.plan import ExperimentPlan
from onepiece.experiment.router import exposure_id
from onepiece.serving.client import GrpcClient, HttpClient
from onepiece.serving.schemas import PreRankRequest, RecommendRequest, RetrieveRequest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PLAN = ExperimentPlan.model_validate(
    {
        "name": "two-models",
        "traffic_bp": 8_000,
        "layers": [
            {
                "name": "model",
                "sets": "ranker",
                "salt": "s",
                "control": "old",
                "arms": [
                    {"name": "old", "weight_bp": 5_000, "uses": "onepiece"},
                    {"name": "new", "weight_bp": 5_000, "uses": "onepiece"},
                ],
            }
        ],
    }
)
ASSIGNMENT = PlannedAssignment(PLAN)
USERS = tuple(f"user-{number}" for number in range(60))
NEW_USER = next(user for user in USERS if ASSIGNMENT.arms_of(user).get("model") == "new")
OLD_USER = next(user for user in USERS if ASSIGNMENT.arms_of(user).get("model") == "old")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Plan, upstreams and log of the module's router."""
    folder = tmp_path_factory.mktemp("route")
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN.model_dump(mode="json")))
    SqliteEventLog.create(folder / "log", num_partitions=2).close()
    return folder


@pytest.fixture(scope="module")
def old(start_host, world):
    return start_host("serving", "kserve", "--release", world / "release")


@pytest.fixture(scope="module")
def new(start_host, world):
    return start_host("serving", "kserve", "--release", world / "release-2")


@pytest.fixture(scope="module")
def router(start_host, folder, old, new):
    """Before `old` over gRPC and `new` over REST."""
    upstreams = {
        "layer": "model",
        "arms": {"old": f"grpc://{old.grpc_target}", "new": new.http_url},
    }
    (folder / "upstreams.yaml").write_text(yaml.safe_dump(upstreams))
    return start_host(
        *("experiment", "route", "--plan", folder / "plan.yaml", "--log", folder / "log"),
        *("--upstreams", folder / "upstreams.yaml", "--drain-delay-s", 2),
    )


@pytest.fixture
def versions(world):
    """Arm -> version of the model that its server has."""
    return {
        "old": read_manifest(world / "bundle").version,
        "new": read_manifest(world / "bundle-2").version,
    }


@pytest.fixture
def ask(world_module):
    """Makes requests, each with an id of its own."""
    numbers = iter(range(1_000_000))
    started = time.monotonic_ns()

    def ask(user_id: str, **changes: object) -> RecommendRequest:
        fields = {"user_id": user_id, "request_id": f"{started}-{next(numbers)}"} | changes
        return RecommendRequest(**world_module.request_fields(**fields))

    return ask


def exposures(folder):
    """Every record of the log, twice what was logged twice."""
    log = SqliteEventLog.open(folder / "log")
    found = list(read_events(log))
    log.close()
    return found


def test_each_user_is_answered_by_the_server_of_her_arm_and_the_exposure_is_there_before_the_answer(
    router, folder, versions, ask
):
    requests = [ask(user) for user in USERS]

    with HttpClient(router.http_url) as http, GrpcClient(router.grpc_target) as rpc:
        for place, request in enumerate(requests):
            answer = (http, rpc)[place % 2].recommend(request)

            arms = dict(ASSIGNMENT.arms_of(request.user_id))
            assert answer.model_version == versions[arms.get("model", "old")]
            [exposure] = [one for one in exposures(folder) if one.request_id == request.request_id]
            assert exposure.arms == arms
            assert exposure.event_id == exposure_id(request.request_id)
            assert exposure.item_ids == tuple(item.item_id for item in answer.items)
            assert exposure.model_version == answer.model_version
    arms = Counter(ASSIGNMENT.arms_of(user).get("model") for user in USERS)
    assert min(arms.values()) > 5
    assert len(arms) == 3


def test_rest_and_grpc_give_the_servers_own_answer(router, old, ask):
    request = ask(OLD_USER)

    with HttpClient(router.http_url) as http, GrpcClient(router.grpc_target) as rpc:
        answers = [http.recommend(request), rpc.recommend(request)]
    with HttpClient(old.http_url) as direct:
        expected = direct.recommend(request)

    assert answers == [expected, expected]


def test_retrieve_and_pre_rank_go_to_the_users_arm_and_are_not_logged(
    router, folder, versions, world_module
):
    before = len(exposures(folder))
    for user, arm in ((OLD_USER, "old"), (NEW_USER, "new")):
        fields = world_module.request_fields(user_id=user)
        with HttpClient(router.http_url) as http, GrpcClient(router.grpc_target) as rpc:
            for client in (http, rpc):
                retrieved = client.retrieve(RetrieveRequest(**fields, retriever="onepiece"))
                ranked = client.pre_rank(PreRankRequest(**fields, item_ids=("milk-01", "milk-02")))
                assert retrieved.model_version == ranked.model_version == versions[arm]

    assert len(exposures(folder)) == before


@pytest.mark.parametrize("changes", [{"as_of_ms": 1_400_000_000_000}])
def test_a_servers_refusal_is_passed_on_and_not_logged(router, folder, old, ask, changes):
    before = len(exposures(folder))
    request = ask(OLD_USER, **changes)
    said = []
    for url, target in ((router.http_url, router.grpc_target), (old.http_url, old.grpc_target)):
        with HttpClient(url) as http, GrpcClient(target) as rpc:
            for client in (http, rpc):
                with pytest.raises(OnePieceError) as caught:
                    client.recommend(request)
                said.append((type(caught.value), str(caught.value)))

    assert said.count(said[0]) == 4
    assert len(exposures(folder)) == before


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"request_id": "r"}', b"\xff"])
def test_a_malformed_body_is_refused_in_the_servers_words(router, old, body):
    told, expected = (
        httpx.post(f"{url}/v1/recommend", content=body, timeout=30)
        for url in (router.http_url, old.http_url)
    )

    assert told.status_code == expected.status_code == 400
    assert told.json() == expected.json()


def test_metrics_count_answers_and_exposures(router, ask):
    def read(name: str) -> float:
        text = httpx.get(f"{router.http_url}/metrics", timeout=30).text
        return next((float(x.split()[-1]) for x in text.splitlines() if x.startswith(name)), 0.0)

    latency = 'onepiece_experiment_router_latency_seconds_count{method="recommend"}'
    shown = 'onepiece_experiment_exposures_total{arm="new",layer="model"}'
    before = read(latency), read(shown)

    with HttpClient(router.http_url) as client:
        client.recommend(ask(NEW_USER))

    assert (read(latency), read(shown)) == (before[0] + 1, before[1] + 1)


def test_an_arm_that_is_down_is_named_and_the_other_answers_on(
    start_host, world, folder, tmp_path, old, ask
):
    doomed = start_host(
        *("serving", "kserve", "--release", world / "release-2", "--drain-delay-s", 0)
    )
    upstreams = {
        "layer": "model",
        "address": f"grpc://{old.grpc_target}",
        "arms": {"new": f"grpc://{doomed.grpc_target}"},
    }
    (tmp_path / "upstreams.yaml").write_text(yaml.safe_dump(upstreams))
    router = start_host(
        *("experiment", "route", "--plan", folder / "plan.yaml", "--log", folder / "log"),
        *("--upstreams", tmp_path / "upstreams.yaml"),
    )
    with HttpClient(router.http_url) as client:
        client.recommend(ask(NEW_USER))
        doomed.process.kill()
        doomed.process.wait(30)
        before = len(exposures(folder))

        with pytest.raises(Unavailable, match="servers of arm 'new', grpc://") as caught:
            client.recommend(ask(NEW_USER))
        assert len(exposures(folder)) == before
        assert "gave no answer" in str(caught.value)
        client.recommend(ask(OLD_USER))

    assert len(exposures(folder)) == before + 1
    assert httpx.get(f"{router.http_url}/v1/health", timeout=30).status_code == 200


def test_the_router_opens_its_doors_only_when_every_server_answers(
    start_host, world, folder, unused_port
):
    asked = []

    def start_server(url: str) -> None:
        """Only when the router has been there for a while."""

        def watch() -> None:
            while not asked or asked[-1] == 0:
                try:
                    asked.append(httpx.get(f"{url}/v1/health", timeout=5).status_code)
                except httpx.TransportError:
                    asked.append(0)
                time.sleep(0.1)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        while len(asked) < 30:
            time.sleep(0.1)
        start_host(*("serving", "kserve", "--release", world / "release"), http_port=unused_port)
        thread.join(60)

    router = start_host(
        *("experiment", "route", "--plan", folder / "plan.yaml", "--log", folder / "log"),
        *("--upstream", f"http://127.0.0.1:{unused_port}"),
        on_start=start_server,
    )

    assert asked[-1] == 200
    assert set(asked[:-1]) == {0}
    assert len(asked) > 30
    assert "waiting for the servers" in router.log.read_text()


def test_a_stopped_router_loses_no_request_and_logs_each_once(router, folder, ask):
    told = threading.Event()
    failures: list[str] = []
    answered: list[str] = []

    def send(client: HttpClient | GrpcClient, user: str) -> None:
        while not told.is_set():
            request = ask(user)
            try:
                client.recommend(request)
                answered.append(request.request_id)
            except OnePieceError as error:
                failures.append(f"{type(client).__name__}: {error}")

    clients = [
        *(HttpClient(router.http_url, timeout_s=30) for _ in range(3)),
        *(GrpcClient(router.grpc_target, timeout_s=30) for _ in range(3)),
    ]
    threads = [
        threading.Thread(target=send, args=(client, USERS[place]))
        for place, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    router.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    health = httpx.get(f"{router.http_url}/v1/health", timeout=30)
    told.set()
    for thread in threads:
        thread.join(60)
    code = router.process.wait(60)
    for client in clients:
        client.close()

    logged = Counter(event.request_id for event in exposures(folder))
    assert failures == []
    assert len(answered) > 20
    assert {logged[request_id] for request_id in answered} == {1}
    assert health.status_code == 503
    assert code == 0


def test_exposures_go_to_kafka(start_host, kafka_broker, folder, old, ask):
    from onepiece.events.kafka_log import KafkaEventLog
    from onepiece.events.kafka_settings import KafkaSettings

    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.bootstrap_servers, prefix="route", num_partitions=2
    )
    KafkaEventLog.create(settings).close()
    environment = {
        "ONEPIECE_KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "ONEPIECE_KAFKA_PREFIX": "route",
        "ONEPIECE_KAFKA_NUM_PARTITIONS": "2",
    }
    router = start_host(
        *("experiment", "route", "--plan", folder / "plan.yaml", "--kafka"),
        *("--upstream", f"grpc://{old.grpc_target}"),
        environment=environment,
    )
    requests = [ask(user) for user in USERS[:20]]

    with GrpcClient(router.grpc_target, timeout_s=30) as client:
        for request in requests:
            client.recommend(request)

    log = KafkaEventLog.open(settings)
    found = list(read_events(log))
    log.close()
    assert sorted(event.request_id for event in found) == sorted(one.request_id for one in requests)
    assert {event.user_id: dict(event.arms) for event in found} == {
        one.user_id: dict(ASSIGNMENT.arms_of(one.user_id)) for one in requests
    }


def test_wrong_settings_are_said_before_anything_is_opened(start_host, folder):
    with pytest.raises(AssertionError, match="give grpc://host:port"):
        start_host(
            *("experiment", "route", "--plan", folder / "plan.yaml", "--log", folder / "log"),
            *("--upstream", "localhost:9000"),
        )
