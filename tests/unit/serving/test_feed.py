"""What a feed-trained model reads in training is there in serving, token for token."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onepiece.bundle import Bundle, load_bundle
from onepiece.context.builder import TokenKind
from onepiece.context.vocabulary import FIRST_ROW
from onepiece.datasets.event_data import ALL_ITEMS, ALL_STORES
from onepiece.datasets.planted_feed import PlantedFeed, planted_feed
from onepiece.errors import InvalidInput
from onepiece.events.anchors import AnchorRecipe, Anchors, QueryUpdate, compute_anchors
from onepiece.events.catalogue import Catalogue
from onepiece.events.history import HistoryRecipe, replay_histories
from onepiece.events.log import Position, Record
from onepiece.events.schema import DAY_MS, Event
from onepiece.features.item_table import (
    ItemTableRecipe,
    ItemTables,
    SalesLedger,
    compute_item_table,
)
from onepiece.features.memory_store import MemoryStore
from onepiece.index.build import build_index
from onepiece.models.inputs import ContextTensors, context_tensors
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.schemas import Answer, RetrieveRequest
from onepiece.training.evaluate_catalogue import rank_catalogue
from onepiece.training.feed_examples import build_feed_examples
from onepiece.training.fit import fit
from onepiece.training.packed import Examples, open_examples
from onepiece.training.recipe import TrainingRecipe

MODELS = {
    "onepiece": {
        "width": 16,
        "num_layers": 1,
        "item_ids": "learned",
        "id_width": 16,
        "has_match_bias": False,
        # Far fewer floats than items: codes alone would put recalled items in a wrong order.
        "recognition_width": 4,
    },
    "hstu": {"kind": "hstu", "task": "click", "width": 16, "num_layers": 1},
}
RECIPE = {
    "context": {"max_recent_tokens": 4, "max_memory_tokens": 0, "max_anchor_tokens": 5},
    "feed": {"item_to_item": {}},
    "losses": {"retrieval_weight": 1.0, "catalogue": {"num_negatives": None}},
    "batch_size": 32,
}


class RecordingModel:
    """A model that keeps what it was given to read."""

    def __init__(self, model: object) -> None:
        self._model = model
        self.read: list[ContextTensors] = []

    def encode_context(self, context: ContextTensors) -> object:
        self.read.append(context)
        return self._model.encode_context(context)

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


@dataclass(frozen=True)
class Feed:
    """A small feed: its examples, and a shop's stores that were filled from the same events."""

    folder: Path
    user_ids: list[str]
    test: Examples
    store: MemoryStore
    item_tables: ItemTables


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    folder = tmp_path_factory.mktemp("feed")
    data = planted_feed(PlantedFeed(num_users=40, num_circles=3, circle_size=6))
    events = list(data.events)
    catalogue = data.items.catalogue()
    recipe = TrainingRecipe.model_validate(RECIPE)
    build_feed_examples(events, catalogue, recipe, folder / "data", test_out=folder / "test")
    last_ms = max(event.at_ms for event in events)
    return Feed(
        folder=folder,
        user_ids=sorted({event.user_id for event in events}),
        test=open_examples(folder / "test", context=recipe.context),
        store=_filled_store(events, catalogue, last_ms=last_ms),
        item_tables=_tables(catalogue, folder / "tables", last_ms=last_ms),
    )


def _filled_store(events: list[Event], catalogue: Catalogue, *, last_ms: int) -> MemoryStore:
    """Folds the whole log, the test's own events included, and counts anchors of the query."""
    store = MemoryStore()
    records = [Record(Position(0, place), event) for place, event in enumerate(events)]
    store.write_histories(
        list(replay_histories(records, catalogue.category_of, recipe=HistoryRecipe()))
    )
    anchors = compute_anchors(events, as_of_ms=last_ms, recipe=AnchorRecipe())
    assert [one.query_id for one in anchors if one.anchors.clicked] == [ALL_ITEMS]
    store.write_queries(anchors)
    return store


def _tables(catalogue: Catalogue, folder: Path, *, last_ms: int) -> ItemTables:
    """One store that sells every item."""
    ledger, num_items = SalesLedger(), len(catalogue.item_ids)
    at_ms = [last_ms - 9 * DAY_MS] * num_items
    ledger.add_columns(
        item_ids=list(catalogue.item_ids),
        store_ids=[ALL_STORES] * num_items,
        unit_prices=[1.0] * num_items,
        at_ms=at_ms,
        received_at_ms=at_ms,
    )
    day_ms = last_ms // DAY_MS * DAY_MS
    compute_item_table(ledger, catalogue, valid_from_ms=day_ms, recipe=ItemTableRecipe()).save(
        folder
    )
    return ItemTables(folder)


@pytest.fixture(scope="module", params=MODELS)
def bundle(request: pytest.FixtureRequest, feed: Feed) -> Bundle:
    torch.set_num_threads(1)
    recipe = TrainingRecipe.model_validate(RECIPE | {"model": MODELS[request.param]})
    out = feed.folder / request.param
    fit(feed.folder / "data", recipe, out)
    return load_bundle(out)


@pytest.fixture
def served(feed: Feed, bundle: Bundle, tmp_path: Path):
    """A pipeline that serves the bundle, and the model that keeps what it reads."""
    model = RecordingModel(bundle.model)
    pipeline = Pipeline(
        replace(bundle, model=model),
        store=feed.store,
        item_tables=feed.item_tables,
        index=build_index(bundle, tmp_path / "index"),
    )
    return pipeline, model


def _answer(pipeline: Pipeline, feed: Feed, row: int, **changes: object) -> Answer:
    """Asks for the whole catalogue at the instant of a test example."""
    asked = {
        "request_id": "r",
        "user_id": feed.user_ids[feed.test.columns["user_codes"][row]],
        "query_id": ALL_ITEMS,
        "store_id": ALL_STORES,
        "as_of_ms": int(feed.test.columns["as_of_ms"][row]),
        "count": len(feed.test.vocabulary.item_ids),
    }
    [answer] = pipeline.retrieve([RetrieveRequest(**asked | changes)])
    return answer


def test_the_server_reads_what_the_test_example_of_the_user_holds(feed: Feed, served):
    pipeline, model = served

    for row in range(len(feed.test)):
        _answer(pipeline, feed, row)

    anchors = feed.test.columns["kinds"] == TokenKind.CLICKED_ANCHOR
    assert np.count_nonzero(anchors) > 3 * len(feed.test)
    assert len(model.read) == len(feed.test) == 40
    for row, read in enumerate(model.read):
        expected = context_tensors(feed.test.batch(np.array([row])).context)
        for one in fields(expected):
            assert torch.equal(getattr(read, one.name), getattr(expected, one.name)), one.name


def test_the_server_lists_what_the_evaluator_ranks(feed: Feed, bundle: Bundle, served):
    pipeline, _ = served
    rows = np.arange(len(feed.test))
    ranks = rank_catalogue(bundle.model, feed.test, list_length=5)
    row_of_list = np.argsort(feed.test.sizes(rows), kind="stable").tolist()
    item_ids = np.array(feed.test.vocabulary.item_ids)

    listed = [[one.item_id for one in _answer(pipeline, feed, row).items] for row in rows.tolist()]

    targets = item_ids[ranks.items_P].tolist()
    assert ranks.requests_P.tolist() == rows.tolist()
    assert [
        answer.index(target) + 1 for answer, target in zip(listed, targets, strict=True)
    ] == ranks.ranks_P.tolist()
    for row, list_K in zip(row_of_list, ranks.lists_BK, strict=True):
        seen = set(item_ids[feed.test.batch(np.array([row])).seen_rows[0] - FIRST_ROW].tolist())
        # The evaluator's lists hold no item that was met before, but for the target.
        seen.discard(targets[row])
        new = [item_id for item_id in listed[row] if item_id not in seen]
        assert new[:5] == item_ids[list_K].tolist()


def test_a_short_list_is_the_head_of_the_whole_one_alone_and_among_others(feed: Feed, served):
    pipeline, _ = served
    rows = range(len(feed.test))
    whole = [_answer(pipeline, feed, row) for row in rows]
    asked = [
        RetrieveRequest(
            request_id=f"r{row}",
            user_id=feed.user_ids[feed.test.columns["user_codes"][row]],
            query_id=ALL_ITEMS,
            store_id=ALL_STORES,
            as_of_ms=int(feed.test.columns["as_of_ms"][row]),
            count=3,
        )
        for row in rows
    ]

    heads = [[one.item_id for one in answer.items[:3]] for answer in whole]
    alone = [pipeline.retrieve([one])[0] for one in asked]
    together = pipeline.retrieve(asked)

    assert [[one.item_id for one in answer.items] for answer in alone] == heads
    assert [[one.item_id for one in answer.items] for answer in together] == heads


def test_a_query_keeps_its_own_anchors(feed: Feed, served):
    pipeline, model = served
    item_ids = feed.test.vocabulary.item_ids[:2]
    as_of_ms = int(feed.test.columns["as_of_ms"][0])
    anchors = Anchors(clicked=item_ids)
    feed.store.write_queries([QueryUpdate("shoes", as_of_ms - 1, anchors, num_requests=1)])

    _answer(pipeline, feed, 0, query_id="shoes")

    is_anchor = model.read[0].kinds_BT == TokenKind.CLICKED_ANCHOR
    expected = feed.test.vocabulary.item_rows(item_ids).tolist()
    assert model.read[0].item_rows_BT[is_anchor].tolist() == expected


@pytest.mark.parametrize("role", ["retrieves", "ranks"])
def test_a_model_of_shown_lists_is_refused_before_it_is_asked(world, role: str):
    recipe = world.bundle.recipe.model_copy(update={"requests": "shown_list"})
    of_lists = replace(world.bundle, recipe=recipe)
    bundle, ranking = (of_lists, None) if role == "retrieves" else (world.bundle, of_lists)

    with pytest.raises(InvalidInput, match=r"log_display_rank.*pages\.has_list_features: false"):
        replace(world, bundle=bundle).pipeline(ranking_bundle=ranking)


def test_a_bundle_that_does_not_say_what_its_requests_were_is_served_with_a_warning(world, caplog):
    recipe = world.bundle.recipe.model_copy(update={"requests": None})

    world.pipeline()
    assert caplog.messages == []
    replace(world, bundle=replace(world.bundle, recipe=recipe)).pipeline()

    [said] = caplog.messages
    assert "does not say what its requests were" in said
