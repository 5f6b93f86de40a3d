"""Lists that were shown: a small search of our own, in which users click what they looked at."""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onepiece.context.builder import build_context
from onepiece.context.request import Candidates, ContextRequest
from onepiece.context.vocabulary import FIRST_ROW
from onepiece.datasets.adapters import ADAPTERS
from onepiece.datasets.event_data import Session
from onepiece.datasets.event_files import write_event_data
from onepiece.errors import InvalidDataset, InvalidRecipe, NotFound, OutputExists
from onepiece.events.anchors import AnchorRecipe, compute_anchors
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import replay_histories
from onepiece.events.history_fold import HistoryRecipe
from onepiece.events.log import Position, Record
from onepiece.events.schema import Click, Event, Exposure, Impression
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import SignalKey
from onepiece.parsing import read_recipe
from onepiece.training.commands import add_commands
from onepiece.training.fit import fit
from onepiece.training.floors import FLOORS
from onepiece.training.list_ranking import model_scores, rank_lists
from onepiece.training.loop import train
from onepiece.training.packed import Examples, open_examples
from onepiece.training.page_data import PageData, read_page_data
from onepiece.training.page_examples import build_page_examples
from onepiece.training.page_features import display_ranks, page_features
from onepiece.training.page_recipe import PageRecipe
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.sessions import Part, split_sessions
from onepiece.training.spine import Stage

DAY_MS = 86_400_000
T0_MS = 1_500_000_000_000 // DAY_MS * DAY_MS
NUM_SESSIONS = 60
LIST = tuple(f"item-{n}" for n in range(10))
PAGE_RECIPES = sorted(
    path
    for path in (Path(__file__).parents[3] / "ray_jobs" / "recipes").glob("*.yaml")
    if read_recipe(path, TrainingRecipe).pages
)


def _catalogue() -> Catalogue:
    count = len(LIST)
    columns = [tuple("ulm" for _ in LIST)] + [("unknown",) * count] * 5
    return Catalogue(LIST, *columns)


def _session(number: int, at_ms: int, random: np.random.Generator) -> list[Event]:
    """Looks at two items, then clicks the second in a list of six; two lists a session."""
    user = f"user-{number % 20:02d}"
    events: list[Event] = []
    for place in range(2):
        at_ms += 60_000
        request_id = f"s{number:02d}-{place}"
        shown = tuple(LIST[i] for i in random.permutation(len(LIST))[:6])
        for order, item_id in enumerate((shown[0], shown[3])):
            events.append(_click(user, f"look-{request_id}-{order}", at_ms + order, item_id))
        asked = {"user_id": user, "at_ms": at_ms + 9, "received_at_ms": at_ms + 9}
        listed = {"request_id": request_id, "query_id": "ulm pool", "item_ids": shown}
        events.append(Exposure(event_id=f"e-{request_id}", store_id="DE", **asked, **listed))
        events.append(Impression(event_id=f"i-{request_id}", **asked, **listed))
        events.append(_click(user, f"c-{request_id}", at_ms + 9, shown[3], request_id))
    return events


def _click(
    user: str, event_id: str, at_ms: int, item_id: str, request_id: str | None = None
) -> Click:
    return Click(
        event_id=event_id,
        user_id=user,
        at_ms=at_ms,
        received_at_ms=at_ms,
        item_id=item_id,
        request_id=request_id,
        query_id="ulm pool",
    )


def _data(events: list[Event] | None = None) -> PageData:
    random = np.random.default_rng(0)
    if events is None:
        events = [
            event
            for number in range(NUM_SESSIONS)
            for event in _session(number, T0_MS + number * 3_600_000, random)
        ]
    prices = {f"s{n:02d}-1": dict.fromkeys(LIST, 50.0) for n in range(NUM_SESSIONS)}
    return PageData(events=lambda: iter(events), catalogue=_catalogue(), prices=prices)


@pytest.fixture(scope="module")
def page_recipe() -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {
            "pages": {},
            "examples": {"keep": "click"},
            "context": {"max_anchor_tokens": 3},
            "model": {"retrieval_tasks": [], "ranking_tasks": ["click"], "width": 16},
            "losses": {"ranking_bce": 0.0},
            "optimiser": {"learning_rate": 1e-2, "warm_up_steps": 5},
            "epochs": 12,
            "batch_size": 8,
        }
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Examples, Examples]]:
    def run(data: PageData, recipe: TrainingRecipe) -> tuple[Examples, Examples]:
        folder = tmp_path_factory.mktemp("pages")
        build_page_examples(data, recipe, folder / "data", test_out=folder / "test")
        return tuple(
            open_examples(folder / name, context=recipe.context) for name in ("data", "test")
        )

    return run


@pytest.fixture(scope="module")
def built(build, page_recipe: TrainingRecipe) -> tuple[Examples, Examples]:
    return build(_data(), page_recipe)


def _all(examples: Examples):
    return examples.batch(np.arange(len(examples)))


def test_sessions_that_began_last_are_the_test_and_those_before_validation() -> None:
    sessions = [Session(f"s{n}", 1_000 - n) for n in range(100)]

    parts = split_sessions(sessions, PageRecipe(test_share=0.2, validation_share=0.25))

    assert [sum(p is part for p in parts.values()) for part in Part] == [60, 20, 20]
    assert {s for s, p in parts.items() if p is Part.TEST} == {f"s{n}" for n in range(20)}
    assert {s for s, p in parts.items() if p is Part.VALIDATION} == {f"s{n}" for n in range(20, 40)}


def test_the_test_is_a_folder_of_its_own_with_the_vocabulary_of_training(built) -> None:
    data, test = built

    assert test.rows(is_validation=False).tolist() == []
    assert len(test) == round(0.2 * NUM_SESSIONS)
    assert test.vocabulary.digest() == data.vocabulary.digest()
    assert test.columns["as_of_ms"].min() > data.columns["as_of_ms"].max()
    training = data.columns["as_of_ms"][data.rows(is_validation=False)]
    validation = data.columns["as_of_ms"][data.rows(is_validation=True)]
    assert training.max() < validation.min()
    assert len(training) == 2 * 41


def test_a_session_is_tested_on_its_last_list_only(built) -> None:
    _, test = built

    # The second list of each session is a minute after the first.
    within_hour = test.columns["as_of_ms"] % 3_600_000
    assert set(within_hour.tolist()) == {2 * 60_000 + 9}


def test_the_item_clicked_is_the_label_and_all_others_are_only_seen(built) -> None:
    events = list(_data().events())
    clicked = {e.at_ms: e.item_id for e in events if e.kind == "click" and e.request_id}
    _, test = built
    batch = _all(test)

    for place, at_ms in enumerate(test.columns["as_of_ms"].tolist()):
        row = batch.context.candidate_rows[place, batch.stages[place].argmax()]
        assert test.vocabulary.item_ids[row - FIRST_ROW] == clicked[at_ms]
        assert sorted(batch.stages[place].tolist()) == [Stage.SEEN] * 5 + [Stage.CLICKED]


def test_nothing_at_or_after_a_list_changes_its_example(build, page_recipe, built) -> None:
    events = list(_data().events())
    _, test = built
    last_ms = int(test.columns["as_of_ms"].max())
    user = next(e.user_id for e in reversed(events) if e.kind == "exposure")
    later = [_click(user, f"later-{n}", last_ms + n, LIST[n]) for n in range(5)]

    _, with_future = build(_data([*events, *later]), page_recipe)

    assert with_future.digest == test.digest


def test_signals_are_those_that_a_point_in_time_join_gives(built, page_recipe) -> None:
    data = _data()
    events = list(data.events())
    store = MemoryStore()
    records = [Record(Position(0, offset), event) for offset, event in enumerate(events)]
    store.write_histories(
        list(replay_histories(records, data.catalogue.category_of, recipe=HistoryRecipe()))
    )
    for day in range(4):
        at_ms = T0_MS + day * DAY_MS
        store.write_queries(compute_anchors(events, as_of_ms=at_ms, recipe=AnchorRecipe()))
    _, test = built
    pages = {e.at_ms: e for e in events if e.kind == "exposure"}

    for row, at_ms in enumerate(test.columns["as_of_ms"].tolist()):
        page = pages[at_ms]
        (signals,) = store.read_as_of([SignalKey(page.user_id, page.query_id, "ulm", at_ms)])
        request = ContextRequest(
            page.user_id,
            page.query_id,
            "DE",
            at_ms,
            signals,
            Candidates((), np.zeros((0, test.columns["candidate_features"].shape[1]))),
        )
        context = build_context(request, page_recipe.context, test.vocabulary)
        batch = test.batch(np.array([row])).context
        assert batch.item_rows[0].tolist() == context.item_rows.tolist()
        assert batch.kinds[0].tolist() == context.kinds.tolist()
        assert batch.token_features[0].tolist() == context.token_features.tolist()
        assert batch.situation[0].tolist() == context.situation.tolist()


def test_what_the_user_looked_at_just_before_is_the_newest_token(built) -> None:
    _, test = built
    batch = _all(test)
    clicked = batch.context.candidate_rows[batch.stages == Stage.CLICKED]

    newest = [rows[kinds <= 2][kinds[kinds <= 2] > 0][-1] for rows, kinds in _tokens(batch)]

    assert newest == clicked.tolist()


def _tokens(batch):
    return zip(batch.context.item_rows, batch.context.kinds, strict=True)


def test_the_users_own_clicks_are_not_in_an_items_popularity(build, page_recipe) -> None:
    events = list(_data().events())
    alone = [e.model_copy(update={"user_id": "one"}) for e in events]

    _, test = build(_data(alone), page_recipe)

    assert not _all(test).context.candidate_features[..., -1].any()


def test_list_features_are_place_price_and_who_took_the_item() -> None:
    features = page_features(
        ("a", "b", "c", "x"),
        displayed=("b", "a", "b", "c"),
        prices={"a": 50.0, "b": 100.0, "c": 200.0},
        num_other_users=(0, 3, 0, 0),
    )

    assert display_ranks(features).tolist() == [2, 1, 4, 0]
    assert features[:, 7] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.0])
    assert features[:, 8] == pytest.approx([-np.log(2), 0.0, np.log(2), 0.0])
    assert features[:, 9] == pytest.approx([0.0, np.log(4), 0.0, 0.0])
    assert features[:, 3] == pytest.approx(np.log1p([50, 100, 200, 0]))


def test_a_model_that_is_to_be_served_is_trained_without_the_list(
    built, build, page_recipe
) -> None:
    recipe = page_recipe.model_copy(update={"pages": PageRecipe(has_list_features=False)})

    _, test = build(_data(), recipe)

    features = _all(test).context.candidate_features
    assert set(np.unique(features).tolist()) == {0.0, 1.0}
    assert test.requests == "shop"
    assert built[0].requests == built[1].requests == "shown_list"


def test_named_sessions_are_used_where_the_data_set_has_them(build, page_recipe) -> None:
    data = _data()
    # Named the other way round: the first half of the lists is of sessions that began last.
    lists = [e.request_id for e in data.events() if e.kind == "exposure"]
    named = {r: Session(r[:3], T0_MS - n) for n, r in enumerate(lists)}

    _, test = build(replace(data, sessions=named), page_recipe)

    assert test.columns["as_of_ms"].max() < T0_MS + 13 * 3_600_000


def test_what_was_never_trained_on_is_counted(page_recipe, tmp_path: Path) -> None:
    events = list(_data().events())
    new = (*LIST[:2], "new-item")
    at_ms = T0_MS + 100 * 3_600_000
    asked = {"user_id": "new user", "at_ms": at_ms, "received_at_ms": at_ms}
    listed = {"request_id": "new", "query_id": "never asked", "item_ids": new}
    events += [
        Exposure(event_id="e-new", store_id="DE", **asked, **listed),
        Impression(event_id="i-new", **asked, **listed),
        _click("new user", "c-new", at_ms, "new-item", "new"),
    ]

    counts = build_page_examples(
        _data(events), page_recipe, tmp_path / "data", test_out=tmp_path / "test"
    )

    assert counts["num_candidates_not_in_catalogue"] == 1
    assert counts["num_test_candidates_never_trained_on"] == 1
    assert counts["num_test_targets_never_trained_on"] == 1
    assert counts["num_test_queries_never_trained_on"] == 1
    assert counts["num_lists_without_prices"] > 0


def test_a_data_set_without_lists_is_refused(page_recipe, tmp_path: Path) -> None:
    clicks = [_click("u", f"c{n}", T0_MS + n, LIST[0]) for n in range(5)]

    with pytest.raises(InvalidDataset, match="0 lists were shown"):
        build_page_examples(
            _data(clicks), page_recipe, tmp_path / "data", test_out=tmp_path / "test"
        )

    assert list(tmp_path.iterdir()) == []


def test_one_session_cannot_be_split(page_recipe, tmp_path: Path) -> None:
    one = _session(0, T0_MS, np.random.default_rng(0))

    with pytest.raises(InvalidDataset, match="those of 1 sessions, too few"):
        build_page_examples(_data(one), page_recipe, tmp_path / "data", test_out=tmp_path / "test")


def test_events_out_of_order_are_refused(page_recipe, tmp_path: Path) -> None:
    events = list(_data().events())

    with pytest.raises(InvalidDataset, match="import the data set again"):
        build_page_examples(
            _data(events[::-1]), page_recipe, tmp_path / "data", test_out=tmp_path / "test"
        )


def test_a_recipe_without_pages_is_refused(recipe: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="no part `pages`"):
        build_page_examples(_data(), recipe, tmp_path / "data", test_out=tmp_path / "test")


def test_a_taken_test_folder_is_never_overwritten(page_recipe, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "mine").touch()

    with pytest.raises(OutputExists):
        build_page_examples(_data(), page_recipe, tmp_path / "data", test_out=tmp_path / "test")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="catalogue"):
        read_page_data(tmp_path)


def test_floors_read_the_order_and_the_newest_item(built) -> None:
    _, test = built

    means = {name: rank_lists(floor, test).mean for name, floor in FLOORS.items()}

    assert means["most recently met"] == 1.0
    assert means["display order"] == 0.25
    # All prices are equal: the order of display decides.
    assert means["cheapest"] == 0.25


def test_a_model_learns_to_click_what_was_looked_at_last(built, page_recipe) -> None:
    data, test = built

    model = train(data, page_recipe).model

    assert rank_lists(model_scores(model), test).mean > 0.9


def test_a_ranker_that_says_nothing_is_ranked_last(built) -> None:
    _, test = built

    assert rank_lists(lambda batch: np.zeros(batch.stages.shape), test).mean == pytest.approx(1 / 6)


@pytest.mark.parametrize("path", PAGE_RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_of_lists_trains_what_ranks_them(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path, TrainingRecipe).model_copy(update={"epochs": 1})
    build_page_examples(_data(), recipe, tmp_path / "data", test_out=tmp_path / "test")

    fitted = fit(tmp_path / "data", recipe, tmp_path / "bundle")

    assert 0 <= fitted.metrics["auc_click"] <= 1


def _imported(source: Path, out: Path) -> Path:
    write_event_data(ADAPTERS["trivago"](source), out)
    return out


def test_the_command_says_what_it_made(tmp_path: Path, capsys, repository: Path) -> None:
    rows = ["user_id,session_id,timestamp,step,action_type,reference,platform,city,device,"]
    rows[0] += "current_filters,impressions,prices"
    for n in range(10):
        start = f"U{n},s{n},{1541500000 + n * 60}"
        rows.append(f'{start},1,interaction item image,{n},DE,"Ulm, Germany",mobile,,,')
        rows.append(f'{start},2,clickout item,{n},DE,"Ulm, Germany",mobile,,{n}|77,5|6')
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.csv").write_text("\n".join([*rows, rows[-1]]) + "\n")
    folder = _imported(source, tmp_path / "events")
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    recipe = repository / "ray_jobs" / "recipes" / "trivago_onepiece.yaml"
    arguments = ["page-examples", "--events", str(folder), "--recipe", str(recipe), "--json"]
    args = parser.parse_args(
        [*arguments, "--out", str(tmp_path / "data"), "--test-out", str(tmp_path / "test")]
    )

    assert args.run(args) == 0

    counts = json.loads(capsys.readouterr().out)
    assert counts["num_sessions"] == 10
    assert counts["num_test_examples"] == 2
    test = open_examples(tmp_path / "test", context=read_recipe(recipe, TrainingRecipe).context)
    # Looked at in the same second as the clickout, a step before: it is in the history.
    assert (_all(test).context.kinds > 0).sum(1).tolist() == [1, 1]


def test_the_real_sample_has_the_floors_of_its_description(
    repository: Path, tmp_path: Path
) -> None:
    source = Path(os.environ.get("ONEPIECE_DATASETS", "datasets")) / "trivago"
    if not source.is_dir():
        pytest.skip("the data set trivago is not here; name its parent folder ONEPIECE_DATASETS")
    folder = _imported(source, tmp_path / "events")
    recipe = read_recipe(
        repository / "ray_jobs" / "recipes" / "trivago_onepiece.yaml", TrainingRecipe
    )

    counts = build_page_examples(
        read_page_data(folder), recipe, tmp_path / "data", test_out=tmp_path / "test"
    )

    assert counts["num_test_examples"] == 1_154
    test = open_examples(tmp_path / "test", context=recipe.context)
    means = {name: rank_lists(floor, test).mean for name, floor in FLOORS.items()}
    assert means["most recently met"] == pytest.approx(0.651, abs=0.002)
    assert means["display order"] == pytest.approx(0.518, abs=0.002)
