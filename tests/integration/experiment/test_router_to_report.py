"""From a request to the report, over a real log: nothing between is a stand-in but the shop."""

import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from onepiece.events.log import read_events
from onepiece.events.schema import DAY_MS, Click, Exposure, Impression, Order, OrderLine
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.assignment import FixedAssignment
from onepiece.experiment.join import join_outcomes
from onepiece.experiment.outcomes import LivePhase
from onepiece.experiment.plan import demo_plan
from onepiece.experiment.report import Provenance, build_report
from onepiece.experiment.router import Router
from onepiece.experiment.truth import CellReplay, true_effects
from onepiece.serving.schemas import Answer, AnswerItem, RecommendRequest

pytestmark = pytest.mark.integration

FROM_MS = 17_470 * DAY_MS
PLAN = demo_plan(11)
QUALITY = {"popular": 0.2, "repeat": 0.3, "onepiece": 0.5}

CHILD = """
import itertools, sys
from pathlib import Path
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.plan import demo_plan
from onepiece.experiment.router import Router
from onepiece.serving.schemas import Answer, AnswerItem, RecommendRequest

class Client:
    def recommend(self, request):
        return Answer(request_id=request.request_id, items=(AnswerItem(item_id="i", score=1.0),),
                      as_of_ms=request.as_of_ms, is_known_user=True, is_known_query=True)

router = Router(demo_plan(11), Client(), SqliteEventLog.open(Path(sys.argv[1])))
for number in itertools.count():
    request = RecommendRequest(request_id=f"r{number}", user_id=f"u{number % 7}", query_id="milk",
                               store_id="s1", as_of_ms=1_510_000_000_000)
    print(router.recommend(request).request_id, flush=True)
"""


class Shop:
    """Serves pages whose first item is the right one more often in the better arms."""

    def __init__(self, seed):
        self._seed = seed

    def recommend(self, request):
        luck = np.random.default_rng([self._seed, *request.request_id.encode()]).random()
        chance = QUALITY[request.retriever] + QUALITY[request.ranker]
        first = "wanted" if luck < chance else "other"
        return Answer(
            request_id=request.request_id,
            items=(AnswerItem(item_id=first, score=1.0), AnswerItem(item_id="filler", score=0.5)),
            as_of_ms=request.as_of_ms,
            model_version="v1",
            retriever=request.retriever,
            ranker=request.ranker,
            is_known_user=True,
            is_known_query=True,
        )


def live(router, log, *, num_users, num_visits):
    """Lets every user visit the shop; returns the GMV of each."""
    gmv = np.zeros(num_users)
    for visit in range(num_visits):
        at_ms = FROM_MS + visit * DAY_MS
        requests = [
            RecommendRequest(
                request_id=f"{user}-{visit}",
                user_id=f"user-{user}",
                query_id="milk",
                store_id="s1",
                as_of_ms=at_ms,
            )
            for user in range(num_users)
        ]
        events = []
        for user, answer in enumerate(router.recommend_many(requests)):
            base = {"user_id": f"user-{user}", "at_ms": at_ms + 1, "received_at_ms": at_ms + 2}
            page = {"request_id": answer.request_id, "query_id": "milk"}
            items = tuple(item.item_id for item in answer.items)
            name = answer.request_id
            events.append(Impression(event_id=f"{name}-i", **base, **page, item_ids=items))
            if "wanted" in items:
                price = 1.0 + user % 5
                events.append(Click(event_id=f"{name}-c", **base, **page, item_id="wanted"))
                line = OrderLine(item_id="wanted", quantity=1, unit_price=price, **page)
                events.append(
                    Order(
                        event_id=f"{name}-o",
                        **base,
                        order_id=name,
                        store_id="s1",
                        currency="USD",
                        lines=(line,),
                    )
                )
                gmv[user] += price
        log.append(events)
    return gmv


def test_the_estimate_finds_the_true_effect_and_the_sums_agree(tmp_path):
    num_users, num_visits = 300, 5
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=4)
    with Router(PLAN, Shop(1), log) as router:
        gmv = live(router, log, num_users=num_users, num_visits=num_visits)
    replays = []
    for number, (one, two) in enumerate(itertools.product(QUALITY, QUALITY)):
        arms = {"retrieval": one, "prerank": two}
        apart = SqliteEventLog.create(tmp_path / f"replay{number}", num_partitions=1)
        fixed = FixedAssignment(PLAN, arms)
        with Router(PLAN, Shop(1), apart, assignment=fixed) as router:
            replays.append(CellReplay(arms, live(router, apart, num_users=num_users, num_visits=2)))
        apart.close()
    phase = LivePhase(from_ms=FROM_MS, to_ms=FROM_MS + num_visits * DAY_MS)

    outcomes = join_outcomes(read_events(log), PLAN, phase=phase)
    report = build_report(
        PLAN, outcomes, provenance=Provenance(), truth=true_effects(PLAN, replays)
    )

    log.close()
    assert outcomes.gmv.sum() == pytest.approx(gmv.sum())
    assert outcomes.counts.num_exposures == num_users * num_visits
    assert outcomes.counts.model_versions == {"v1": num_users * num_visits}
    for layer in ("retrieval", "prerank"):
        lift = report.analysis.split(layer).arms[2].metric("gmv_per_user").decisive.relative
        assert lift.low > 0.0
        assert lift.low < report.truth.effect(layer, "onepiece").relative < lift.high


def test_every_answer_given_before_kill_9_has_its_exposure(tmp_path):
    SqliteEventLog.create(tmp_path / "log", num_partitions=2).close()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    answered = [child.stdout.readline().strip() for _ in range(40)]

    os.kill(child.pid, signal.SIGKILL)
    answered.extend(line.strip() for line in child.stdout if line.endswith("\n"))
    child.wait()
    child.stdout.close()

    log = SqliteEventLog.open(tmp_path / "log")
    logged = {event.request_id for event in read_events(log) if isinstance(event, Exposure)}
    log.close()
    assert len(answered) >= 40
    assert set(answered) <= logged


def test_the_report_over_kafka_is_that_over_the_embedded_log(
    tmp_path, monkeypatch, capsys, kafka_broker
):
    from onepiece.cli import main
    from onepiece.events.kafka_log import KafkaEventLog
    from onepiece.events.log_options import kafka_settings
    from onepiece.experiment.plan import dump_plan

    kafka = {"BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers, "PREFIX": "report"}
    for name, value in (kafka | {"NUM_PARTITIONS": "2"}).items():
        monkeypatch.setenv(f"ONEPIECE_KAFKA_{name}", value)
    embedded = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    with Router(PLAN, Shop(1), embedded) as router:
        live(router, embedded, num_users=40, num_visits=2)
    on_kafka = KafkaEventLog.create(kafka_settings(os.environ))
    on_kafka.append(list(read_events(embedded)))
    on_kafka.close()
    embedded.close()
    (tmp_path / "plan.yaml").write_text(dump_plan(PLAN))
    reports = []

    for number, place in enumerate((["--log", str(tmp_path / "log")], ["--kafka"])):
        when = ["--from-ms", str(FROM_MS), "--to-ms", str(FROM_MS + 2 * DAY_MS)]
        where = ["--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / f"r{number}")]
        assert main(["experiment", "report", *place, *when, *where, "--json"]) == 0
        reports.append(capsys.readouterr().out)

    assert reports[0] == reports[1]
