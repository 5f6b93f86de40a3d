import dataclasses
import html.parser
import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from onepiece.errors import InvalidInput, NotFound, OutputExists
from onepiece.experiment.analysis import analyse
from onepiece.experiment.assignment import PlannedAssignment
from onepiece.experiment.estimates import Comparison, Estimate
from onepiece.experiment.join import join_outcomes
from onepiece.experiment.plan import ExperimentPlan
from onepiece.experiment.report import (
    ExperimentReport,
    Provenance,
    build_report,
    read_json,
    write_report,
)
from onepiece.experiment.report_html import render_page
from onepiece.experiment.report_text import MAX_COLUMNS, render_table
from onepiece.experiment.report_words import finding, headline, verdict, warnings
from onepiece.experiment.truth import CellReplay, Truth, true_effects

LIFTS = {"repeat": 0.2, "onepiece": 0.5}
ARMS = ("popular", "repeat", "onepiece")
VOID = {"meta", "link", "br", "hr", "img", "input"}


def make_report(plan, events, phase, **changes):
    gmv = np.array([10.0, 30.0])
    replays = [
        CellReplay(
            {"retrieval": one, "prerank": two},
            gmv * (1.0 + LIFTS.get(one, 0.0)) * (1.0 + LIFTS.get(two, 0.0)),
            mrr_at_20=0.25 + 0.01 * place,
        )
        for place, (one, two) in enumerate(itertools.product(ARMS, ARMS))
    ]
    parts = {
        "provenance": Provenance(
            command="onepiece demo", recipe="quick", seed=7, bundle_version="abc123",
            dataset="Complete Journey", shopper={"patience": "0.85 a place"},
        ),
        "truth": true_effects(plan, replays),
    }  # fmt: skip
    return build_report(plan, join_outcomes(events, plan, phase=phase), **{**parts, **changes})


@pytest.fixture(scope="module")
def report(plan, phase, shop):
    return make_report(plan, shop(plan, num_users=500, seed=1, lifts=LIFTS), phase)


@pytest.fixture(scope="module")
def without_control(plan, phase, shop):
    assignment = PlannedAssignment(plan)
    events = [
        event
        for event in shop(plan, num_users=60)
        if assignment.arms_of(event.user_id)["prerank"] != "popular"
    ]
    return make_report(plan, events, phase, truth=None)


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text; notes every tag that is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text, self.wrong = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_the_json_is_the_report(report, tmp_path):
    write_report(report, render_page(report), tmp_path / "deep" / "out")

    copy = read_json(tmp_path / "deep" / "out" / "report.json", ExperimentReport)

    assert copy == report
    assert copy.schema_version == 1
    assert "NaN" not in report.model_dump_json()
    assert "Infinity" not in report.model_dump_json()


def test_a_report_is_analysed_from_its_outcomes(plan, phase, shop):
    events = shop(plan, num_users=40)

    report = make_report(plan, events, phase)

    assert report.analysis == analyse(join_outcomes(events, plan, phase=phase), plan)


def test_nothing_is_overwritten_and_nothing_half_written_stays(report, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "theirs").touch()

    with pytest.raises(OutputExists, match="never overwritten"):
        write_report(report, "page", folder)

    assert [path.name for path in folder.iterdir()] == ["theirs"]
    write_report(report, "page", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_a_failed_write_leaves_nothing(report, tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_report(report, "\ud800", tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_report_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"schema_version": 2}')

    with pytest.raises(InvalidInput, match="is not a ExperimentReport as JSON"):
        read_json(path, ExperimentReport)
    with pytest.raises(InvalidInput, match="Truth"):
        read_json(path, Truth)
    with pytest.raises(NotFound):
        read_json(tmp_path / "none.json", Provenance)


def test_the_headline_says_effect_interval_and_truth(report):
    pattern = (
        r"OnePiece ranking: \+\d+\.\d% GMV per user against Popular, 95% interval \+\d+\.\d% to "
        r"\+\d+\.\d%; true effect by replay: \+50\.0%\."
    )

    assert re.fullmatch(pattern, headline(report))


def decided(report, comparison):
    """The report's headline arm with another comparison for its GMV per user."""
    split = report.analysis.split("prerank")
    arm = split.arms[2]
    first = dataclasses.replace(arm.metrics[0], plain=comparison, adjusted=None)
    return split, dataclasses.replace(arm, metrics=(first, *arm.metrics[1:]))


@pytest.mark.parametrize(
    ("low", "p_holm", "words", "shown"),
    [
        (-0.1, 0.3, "-10.0% to +50.0%, which includes no difference;", "no difference shown"),
        (0.01, 0.06, "+1.0% to +50.0% (p .060 after correction for several arms);", "no diff"),
        (0.01, 0.04, "+1.0% to +50.0%;", "better"),
    ],
)
def test_a_sentence_claims_no_more_than_is_shown(report, low, p_holm, words, shown):
    lift = Estimate(0.2, low, 0.5)
    split, arm = decided(report, Comparison(lift, lift, p_value=0.03, p_holm=p_holm))

    sentence = finding(report, split, arm)

    assert words in sentence
    assert verdict(arm.metrics[0].decisive).startswith(shown)


def test_what_is_not_estimable_is_said_in_words(without_control):
    assert headline(without_control) == (
        "OnePiece ranking: GMV per user against Popular is not estimable: no users in the control."
    )
    assert "nan" not in render_page(without_control).lower()
    assert "nan" not in render_table(without_control).lower()
    assert "unknown" in render_table(without_control)


@pytest.mark.parametrize("name", ["report", "without_control"])
def test_the_table_fits_the_terminal_and_carries_the_note(name, request):
    report = request.getfixturevalue(name)

    lines = render_table(report).splitlines()

    assert max(len(line) for line in lines) <= MAX_COLUMNS
    assert "Demand is real (Complete Journey receipts); browsing is simulated." in lines
    assert all(line.isascii() for line in lines)


def test_long_names_still_fit_the_terminal(plan, phase, shop):
    values = plan.model_dump()
    for layer in values["layers"]:
        layer["label"] = "L" * 64
        for arm in layer["arms"]:
            arm["label"] = "A" * 64
    plan = ExperimentPlan.model_validate(values)

    text = render_table(make_report(plan, shop(plan, num_users=30), phase))

    assert max(len(line) for line in text.splitlines()) <= MAX_COLUMNS


@pytest.mark.parametrize("name", ["report", "without_control"])
def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(name, request):
    text = render_page(request.getfixturevalue(name))

    page = Page(text)

    assert page.wrong == page.open == []
    assert not {"script", "link", "img", "iframe", "object"}.intersection(page.tags)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    assert all(not key.startswith("on") for key, _ in page.attributes)


def test_every_drawing_is_xml_and_says_in_words_what_it_shows(report):
    text = render_page(report)

    drawings = re.findall(r"<svg[^>]*role=\"img\".*?</svg>(?=<div|<details|</div>)", text, re.S)

    assert len(drawings) == 6 + 3
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.find("title").text
    assert sum("true effect by replay" in drawing for drawing in drawings) == 6


def test_the_note_stands_in_every_section_with_gmv(report):
    text = render_page(report)

    sections = re.split(r"<section>|<header>", text)[1:]

    for section in sections:
        if "GMV" in section and "How to read this" not in section:
            assert "browsing is simulated" in section, section[:80]
    assert "0.85 a place" in text


def test_the_page_shows_seed_recipe_bundle_and_cells(report):
    text = " ".join(Page(render_page(report)).text)

    for words in ("abc123", "quick", "onepiece demo", "MRR@20", "0.2500", "Complete Journey"):
        assert words in text


def test_names_from_outside_cannot_become_markup(plan, phase, shop):
    values = plan.model_dump()
    values["gmv_note"] = "<script>alert(1)</script>"
    values["layers"][0]["label"] = "<b>&"
    values["layers"][0]["arms"][1]["label"] = '"><img src=x>'
    plan = ExperimentPlan.model_validate(values)
    origin = Provenance(recipe="<i>", shopper={"<u>": "</dl>"})

    page = Page(render_page(make_report(plan, shop(plan, num_users=30), phase, provenance=origin)))

    assert page.wrong == page.open == []
    assert not {"script", "img", "i", "u"}.intersection(page.tags)


def test_what_a_reader_must_not_miss_is_a_warning(plan, phase, shop):
    events = shop(plan, num_users=500, seed=1)
    assignment = PlannedAssignment(plan)
    lost = [
        event
        for event in events
        if assignment.arms_of(event.user_id)["prerank"] != "onepiece" or event.user_id[-1] < "5"
    ]
    exposure = next(event for event in lost if event.kind == "exposure").model_copy(
        update={"event_id": "again", "request_id": "again", "degraded_by": "timeout",
                "arms": {"prerank": "repeat", "retrieval": "repeat"}}
    )  # fmt: skip

    report = make_report(plan, [*lost, exposure], phase)

    text = "\n".join(warnings(report))
    assert "Ranking: sample ratio MISMATCH" in text
    assert "All combinations of arms: sample ratio MISMATCH" in text
    assert "1 answers" in text
    assert "met two arms" in text
    assert "MISMATCH" in render_page(report)
    assert "MISMATCH" in render_table(report)


def test_without_truth_nothing_is_said_of_it(plan, phase, shop):
    report = make_report(plan, shop(plan, num_users=60), phase, truth=None)

    assert "true effect" not in render_page(report).lower()
    assert "replay" not in render_table(report)


def test_a_replay_that_differs_from_the_plan_is_shown_with_how_it_differs(report):
    frozen = dataclasses.replace(report.truth.cells[-1], note="yesterday's histories")
    truth = dataclasses.replace(report.truth, cells=(*report.truth.cells, frozen))
    changed = report.model_copy(update={"truth": truth})

    assert "yesterday&#x27;s histories" in render_page(changed)
    assert "yesterday's histories" in render_table(changed)
