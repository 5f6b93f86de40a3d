"""What a run of the skew watch says: data, page and metrics."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from onepiece.context.histograms import COUNTED, count_features, feature_values
from onepiece.context.parts import OTHER, PARTS
from onepiece.errors import NotFound
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.schema import Erasure
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.memory_store import MemoryStore
from onepiece.serving import skew_page
from onepiece.serving.schemas import RecommendRequest
from onepiece.serving.skew import CAUSES
from onepiece.serving.skew_files import write_metrics
from onepiece.serving.skew_page import headline, render_page
from onepiece.serving.skew_rebuild import Rebuilder, draw_shelf
from onepiece.serving.skew_report import SkewRecipe, SkewReport, sample_of, watch


@pytest.fixture
def exposures(world, world_module):
    requests = [
        RecommendRequest(**world_module.request_fields(request_id=f"<r{number}>", user_id=user))
        for number, user in enumerate(["u1", "nobody", "u1"])
    ]
    answers = world.pipeline().recommend(requests)
    return [world_module.exposure_of(*pair) for pair in zip(requests, answers, strict=True)]


@pytest.fixture
def make_report(world, exposures, tmp_path):
    """Watches a log of the exposures, against an offline store."""

    def make_report(offline, bundle=world.bundle, **recipe):
        log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
        log.append(exposures)
        rebuilder = Rebuilder(bundle, offline, world.item_tables)
        wanted = SkewRecipe(**recipe)
        sample = sample_of(log, bundle, wanted)
        return watch(log, sample, rebuilder=rebuilder, bundle=bundle, recipe=wanted)

    return make_report


@pytest.fixture
def changed(world_module):
    """An offline store with other anchors than the server had."""
    store = MemoryStore()
    world_module.write_features(store)
    anchors = Anchors(exposed=world_module.MILK[:9])
    store.write_queries([QueryUpdate("milk", world_module.T0_MS, anchors, num_requests=7)])
    return store


@pytest.fixture
def trained(world, exposures):
    """The bundle, as if it had been trained on the exposures' own requests."""
    rebuilder = Rebuilder(world.bundle, world.memory, world.item_tables)
    rebuilt = rebuilder.rebuild(exposures, [one.at_ms for one in exposures])
    values = [
        feature_values(
            one.context, draw_shelf(exposure, one.table, num_items=20), world.bundle.vocabulary
        )
        for exposure, one in zip(exposures, rebuilt, strict=True)
    ]
    return replace(world.bundle, feature_histograms=count_features(values))


def test_a_report_comes_back_from_its_json(make_report, changed, trained):
    report = make_report(changed, trained)

    assert SkewReport.model_validate_json(report.model_dump_json()) == report


def test_a_healthy_server_raises_no_alarm(world, make_report):
    report = make_report(world.memory)

    assert report.num_by_result == {"equal": 3, "lag": 0, "late_event": 0, "unexplained": 0}
    assert not report.is_alarming
    assert headline(report) == "All 3 contexts were rebuilt equal"


def test_a_defect_is_an_alarm_and_its_requests_are_named(make_report, changed):
    report = make_report(changed)

    assert report.is_alarming
    assert report.unexplained_share == 1.0
    assert report.num_by_part == {"anchors": {"lag": 0, "late_event": 0, "unexplained": 3}}
    assert {one.request_id for one in report.examples} == {"<r0>", "<r1>", "<r2>"}


def test_a_share_that_is_allowed_is_no_alarm(make_report, changed):
    assert not make_report(changed, max_mismatch_share=1.0).is_alarming


def test_a_watch_that_sees_nothing_says_so(world, make_report):
    with pytest.raises(NotFound, match=r"no exposure of bundle .* 'other_model': 3"):
        make_report(world.memory, replace(world.bundle, version="another"))


def test_who_was_erased_is_not_looked_at(world, make_report, world_module, exposures):
    now_ms = world_module.NOW_MS
    common = {"event_id": "erasure", "user_id": "u1"}
    exposures.append(Erasure(**common, at_ms=now_ms + 1, received_at_ms=now_ms + 1))

    report = make_report(world.memory)

    assert report.num_checked == 1


def test_exposures_of_before_the_first_item_table_are_counted(
    world, make_report, world_module, exposures
):
    old = exposures[0].model_copy(
        update={
            "event_id": "old",
            "at_ms": world_module.T0_MS - 1,
            "received_at_ms": world_module.T0_MS - 1,
        }
    )
    exposures.append(old)

    report = make_report(world.memory)

    assert (report.num_checked, report.num_left_out["no_item_table"]) == (3, 1)


def test_nothing_has_moved_where_serving_is_the_training(make_report, world, trained):
    report = make_report(world.memory, trained)

    assert {one.feature for one in report.drift} == set(COUNTED)
    told = {one.feature: one for one in report.drift}
    assert {one.psi for one in report.drift} <= {0.0, None}
    assert told["action"].labels == ("order", "click", "others")
    assert told["category"].labels[0] == "milk"
    assert told["query"].labels == ("milk", "others")
    assert told["has_history"].labels == ("yes", "no", "others")
    assert told["shelf_price"].labels[-1].startswith("above ")
    assert told["num_anchor_items"].serving == told["num_anchor_items"].training


def test_what_moved_is_told(make_report, changed, trained):
    report = make_report(changed, trained)

    assert report.drift[0].feature == "num_anchor_items"
    assert report.drift[0].verdict == "large"
    assert headline(report).endswith("1 of 14 features moved far")


def test_the_page_stands_alone_and_escapes_what_comes_from_outside(make_report, changed, trained):
    page = render_page(make_report(changed, trained))

    assert "&lt;r0&gt;" in page
    assert "<r0>" not in page
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<svg width") == len(COUNTED)
    for feature in COUNTED:
        assert feature in page


def test_a_bundle_without_histograms_says_so_on_the_page(make_report, world):
    assert "does not say how features were distributed" in render_page(make_report(world.memory))


def test_every_part_cause_and_feature_has_words():
    assert set(skew_page._PART_WORDS) == {*PARTS, OTHER}
    assert set(skew_page._CAUSE_WORDS) == set(CAUSES)
    assert set(skew_page._FEATURE_WORDS) == set(COUNTED)


def test_the_metrics_are_these_alone_and_zeros_are_written(make_report, changed, trained, tmp_path):
    path = tmp_path / "metrics.prom"

    write_metrics(make_report(changed, trained), path)

    families = {family.name: family for family in text_string_to_metric_families(path.read_text())}
    assert set(families) == {
        "onepiece_serving_context_checked_exposures",
        "onepiece_serving_context_mismatched_exposures",
        "onepiece_serving_feature_psi",
    }
    mismatched = {
        (sample.labels["part"], sample.labels["cause"]): sample.value
        for sample in families["onepiece_serving_context_mismatched_exposures"].samples
    }
    assert set(mismatched) == {(part, cause) for part in (*PARTS, OTHER) for cause in CAUSES}
    assert {pair for pair, value in mismatched.items() if value} == {("anchors", "unexplained")}
    assert len(families["onepiece_serving_feature_psi"].samples) == len(COUNTED)
