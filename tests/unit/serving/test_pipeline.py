from dataclasses import replace

import numpy as np
import pytest

from onepiece.bundle import load_bundle
from onepiece.context.parts import PARTS
from onepiece.errors import FeatureStoreUnavailable, InvalidInput, InvalidRequest, NotFound
from onepiece.index.build import build_index
from onepiece.serving.pipeline import Pipeline
from onepiece.serving.recipe import FusionRecipe, ServingRecipe
from onepiece.serving.schemas import PreRankRequest, RecommendRequest, RetrieveRequest

STRATEGIES = ("popular", "repeat", "onepiece")


@pytest.fixture
def make(world_module):
    """Makes a request of a model from a good one's fields and what differs."""
    return lambda model, **changes: model(**world_module.request_fields(**changes))


@pytest.fixture
def pipeline(world):
    return world.pipeline()


def ids_of(answer):
    return [item.item_id for item in answer.items]


def scores_of(answer):
    return {item.item_id: item.score for item in answer.items}


def test_popular_takes_what_the_store_sells_most_in_the_category(pipeline, make):
    [answer] = pipeline.retrieve([make(RetrieveRequest, retriever="popular", count=3)])

    assert ids_of(answer) == ["milk-29", "milk-28", "milk-27"]
    assert (answer.retriever, answer.ranker, answer.model_version) == ("popular", "", "")
    assert (answer.context_digest, answer.context_parts) == ("", {})


def test_repeat_takes_own_purchases_by_count_and_then_by_the_latest_before_the_popular(
    pipeline, make
):
    [answer] = pipeline.retrieve([make(RetrieveRequest, retriever="repeat", count=5)])

    # 02 was ordered twice, 05 and before it 03 once; 07 only after the request; 09 was clicked.
    assert ids_of(answer) == ["milk-02", "milk-05", "milk-03", "milk-29", "milk-28"]
    assert [item.source for item in answer.items] == ["repeat"] * 3 + ["popular"] * 2


def test_onepiece_retrieves_the_nearest_items_of_the_pool(world, world_module, pipeline, make):
    [answer] = pipeline.retrieve([make(RetrieveRequest, count=5)])
    [whole] = pipeline.retrieve([make(RetrieveRequest, count=1_000)])

    assert ids_of(answer) == ids_of(whole)[:5]
    assert sorted(ids_of(whole)) == sorted([*world_module.MILK, world_module.NEW_ITEM])
    assert answer.model_version == world.bundle.version
    assert len(answer.context_digest) == 32
    assert tuple(answer.context_parts) == PARTS


def test_an_item_newer_than_the_index_comes_last_and_is_marked(pipeline, world_module, make):
    [answer] = pipeline.retrieve([make(RetrieveRequest, count=1_000)])

    assert answer.items[-1].item_id == world_module.NEW_ITEM
    assert answer.items[-1].source == "popular"
    assert answer.items[-1].score < answer.items[-2].score


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_store_offers_only_what_it_sells(pipeline, make, strategy):
    [answer] = pipeline.recommend(
        [make(RecommendRequest, store_id="s2", retriever=strategy, ranker=strategy)]
    )

    assert ids_of(answer) == ["milk-03"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_store_that_sells_nothing_is_answered_with_nothing(pipeline, make, strategy):
    [answer] = pipeline.recommend(
        [make(RecommendRequest, store_id="s9", retriever=strategy, ranker=strategy)]
    )

    assert answer.items == ()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_unknown_user_is_served_and_said_to_be_unknown(pipeline, make, strategy):
    [known, unknown] = pipeline.recommend(
        [
            make(RecommendRequest, retriever=strategy, ranker=strategy),
            make(RecommendRequest, user_id="nobody", retriever=strategy, ranker=strategy),
        ]
    )

    assert (known.is_known_user, unknown.is_known_user) == (True, False)
    assert len(unknown.items) == len(known.items) == 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_unknown_query_searches_the_whole_store_and_says_so(pipeline, make, strategy):
    [answer] = pipeline.recommend(
        [
            make(
                RecommendRequest,
                query_id="zebra",
                count=1_000,
                retriever=strategy,
                ranker=strategy,
            )
        ]
    )

    assert not answer.is_known_query
    assert {item_id.split("-")[0] for item_id in ids_of(answer)} == {"milk", "bread"}


def test_repeat_reads_recent_orders_when_the_query_names_no_category(pipeline, make):
    [answer] = pipeline.retrieve(
        [make(RetrieveRequest, query_id="zebra", retriever="repeat", count=2)]
    )

    assert ids_of(answer) == ["milk-02", "milk-05"]


def test_recommend_equals_retrieve_followed_by_pre_rank(pipeline, make):
    [page] = pipeline.recommend([make(RecommendRequest)])

    [retrieved] = pipeline.retrieve([make(RetrieveRequest, count=100)])
    [ranked] = pipeline.pre_rank([make(PreRankRequest, item_ids=tuple(ids_of(retrieved)))])

    assert ids_of(page) == ids_of(ranked)[:20]
    for item_id, score in scores_of(page).items():
        assert score == pytest.approx(scores_of(ranked)[item_id], abs=1e-6)
    assert page.context_digest == retrieved.context_digest == ranked.context_digest
    assert page.context_parts["recent"] == ranked.context_parts["recent"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_candidates_never_changes_the_answer(pipeline, world_module, make, strategy):
    item_ids = [*world_module.MILK, "unknown-b", "unknown-a"]
    [first] = pipeline.pre_rank([make(PreRankRequest, item_ids=tuple(item_ids), ranker=strategy)])
    [second] = pipeline.pre_rank(
        [make(PreRankRequest, item_ids=tuple(reversed(item_ids)), ranker=strategy)]
    )

    assert first == second


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_candidate_given_twice_is_answered_once_and_changes_nothing(pipeline, make, strategy):
    item_ids = ("milk-01", "milk-02", "milk-03")

    [once] = pipeline.pre_rank([make(PreRankRequest, item_ids=item_ids, ranker=strategy)])
    [twice] = pipeline.pre_rank(
        [make(PreRankRequest, item_ids=item_ids + item_ids[1:], ranker=strategy)]
    )

    assert (once.num_duplicate_items, twice.num_duplicate_items) == (0, 2)
    assert twice.items == once.items


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unknown_candidates_are_ranked_and_counted(pipeline, make, strategy):
    item_ids = ("milk-01", "who-knows", "what-is-this")

    [answer] = pipeline.pre_rank([make(PreRankRequest, item_ids=item_ids, ranker=strategy)])

    assert sorted(ids_of(answer)) == sorted(item_ids)
    assert answer.num_unknown_items == 2


def test_the_popular_ranker_puts_unknown_items_last(pipeline, make):
    item_ids = ("who-knows", "milk-01", "what-is-this", "milk-20")

    [answer] = pipeline.pre_rank([make(PreRankRequest, item_ids=item_ids, ranker="popular")])

    assert ids_of(answer) == ["milk-20", "milk-01", "what-is-this", "who-knows"]


def test_the_repeat_ranker_puts_own_purchases_first(pipeline, make):
    item_ids = ("milk-29", "milk-05", "milk-07", "milk-02")

    [answer] = pipeline.pre_rank([make(PreRankRequest, item_ids=item_ids, ranker="repeat")])

    assert ids_of(answer) == ["milk-02", "milk-05", "milk-29", "milk-07"]


def test_onepiece_ranks_by_the_probability_of_an_order(pipeline, make):
    [answer] = pipeline.recommend([make(RecommendRequest)])

    orders = [item.order_probability for item in answer.items]
    assert orders == sorted(orders, reverse=True)
    assert orders == [item.score for item in answer.items]
    assert all(0 < item.click_probability < 1 for item in answer.items)
    assert all(0 < item.cart_probability < 1 for item in answer.items)


def test_the_fusion_can_weigh_clicks_and_prices(world, make):
    fusion = FusionRecipe(
        click_exponent=2.0, order_exponent=0.5, relevance_weight=1.0, value_weight=0.1
    )
    request = make(PreRankRequest, item_ids=("milk-01", "bread-01", "nothing"))

    [answer] = world.pipeline(recipe=ServingRecipe(fusion=fusion)).pre_rank([request])

    # The item's price is 1 + the length of its id (world.py), 0 if it was never sold.
    price = {"milk-01": 8.0, "bread-01": 9.0, "nothing": 0.0}
    for item in answer.items:
        relevance = item.click_probability**2 * item.order_probability**0.5
        assert item.score == pytest.approx(relevance * (1 + 0.1 * price[item.item_id]))


def test_many_requests_are_answered_as_each_alone(pipeline, world_module, make):
    requests = [
        make(
            RecommendRequest,
            request_id=f"r{place}",
            user_id=user_id,
            query_id=query_id,
            retriever=retriever,
            ranker=ranker,
        )
        for place, (user_id, query_id, retriever, ranker) in enumerate(
            (user_id, query_id, retriever, ranker)
            for user_id in ("u1", "u2")
            for query_id in ("milk", "zebra")
            for retriever in STRATEGIES
            for ranker in STRATEGIES
        )
    ]

    together = pipeline.recommend(requests)

    for request, answer in zip(requests, together, strict=True):
        [alone] = pipeline.recommend([request])
        assert answer.request_id == request.request_id
        assert ids_of(answer) == ids_of(alone)
        np.testing.assert_allclose(
            list(scores_of(answer).values()), list(scores_of(alone).values()), atol=1e-5
        )


def test_a_batch_reads_the_store_once(world, world_module, make):
    store = world_module.CountingStore(world.memory)

    world.pipeline(store=store).recommend(
        [make(RecommendRequest, request_id=f"r{n}", user_id=f"u{n}") for n in range(5)]
    )

    assert store.num_reads == 1


def test_heuristics_never_touch_the_model(world, world_module, make):
    model = world_module.CountingModel(world.bundle.model)
    requests = [
        make(RecommendRequest, retriever=retriever, ranker=ranker)
        for retriever in ("popular", "repeat")
        for ranker in ("popular", "repeat")
    ]

    answers = world.pipeline(model=model).recommend(requests)

    assert all(answer.items for answer in answers)
    assert model.num_encodes == 0


def test_a_page_by_onepiece_encodes_the_context_once(world, world_module, make):
    model = world_module.CountingModel(world.bundle.model)

    world.pipeline(model=model).recommend([make(RecommendRequest)])

    assert model.num_encodes == 1


def test_a_store_that_is_down_gives_popular_items_and_says_so(world, world_module, make):
    store = world_module.CountingStore(world.memory)
    store.failure = FeatureStoreUnavailable("redis is down")

    [answer] = world.pipeline(store=store).recommend([make(RecommendRequest, count=2)])

    assert ids_of(answer) == ["milk-29", "milk-28"]
    assert answer.degraded_by == "feature_store_unavailable"
    assert (answer.retriever, answer.ranker, answer.model_version) == ("popular", "popular", "")


def test_any_other_failure_of_the_store_is_raised(world, world_module, make):
    store = world_module.CountingStore(world.memory)
    store.failure = RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        world.pipeline(store=store).recommend([make(RecommendRequest)])


@pytest.mark.parametrize(
    ("model", "changes", "field"),
    [
        (RetrieveRequest, {"retriever": "best"}, "retriever"),
        (PreRankRequest, {"ranker": "best", "item_ids": ("a",)}, "ranker"),
        (RecommendRequest, {"retriever": "best"}, "retriever"),
        (RecommendRequest, {"ranker": "best"}, "ranker"),
    ],
)
def test_an_unknown_strategy_is_refused_with_the_allowed_ones(
    pipeline, make, model, changes, field
):
    with pytest.raises(InvalidRequest, match=f"{field} is 'best'; give one of onepiece, popular"):
        pipeline.answer([make(model, **changes)])


def test_a_request_without_an_instant_is_refused(pipeline, make):
    with pytest.raises(InvalidRequest, match="as_of_ms"):
        pipeline.answer([make(RecommendRequest, as_of_ms=None)])


def test_an_instant_before_the_first_item_table_is_not_found(pipeline, make):
    with pytest.raises(NotFound, match="item table"):
        pipeline.answer([make(RecommendRequest, as_of_ms=1_400_000_000_000)])


def test_an_index_of_another_bundle_is_refused(world):
    with pytest.raises(InvalidInput, match="build the index from this bundle"):
        Pipeline(
            world.bundle,
            store=world.memory,
            item_tables=world.item_tables,
            index=replace(world.index, bundle_version="another"),
        )


@pytest.fixture(scope="module")
def halves(world_module, tmp_path_factory):
    """A bundle that only retrieves and another that only ranks."""
    folder, catalogue = tmp_path_factory.mktemp("halves"), world_module.make_catalogue(())
    world_module.make_bundle(folder / "retrieves", catalogue, ranking_tasks=())
    world_module.make_bundle(folder / "ranks", catalogue, seed=1, retrieval_tasks=())
    return load_bundle(folder / "retrieves"), load_bundle(folder / "ranks")


def test_of_two_models_one_retrieves_and_the_other_ranks(world, world_module, make, halves):
    _, ranks = halves
    models = [world_module.CountingModel(one.model) for one in (world.bundle, ranks)]
    pipeline = world.pipeline(model=models[0], ranking_bundle=replace(ranks, model=models[1]))

    [page] = pipeline.recommend([make(RecommendRequest, count=5)])
    [found] = world.pipeline().retrieve([make(RetrieveRequest, count=100)])
    [alone] = pipeline.pre_rank([make(PreRankRequest, item_ids=tuple(ids_of(found)), count=5)])
    [joint] = world.pipeline().recommend([make(RecommendRequest, count=5)])

    assert page.model_version == ranks.version
    assert scores_of(page) == pytest.approx(scores_of(alone))
    assert scores_of(page) != pytest.approx(scores_of(joint))
    assert [model.num_encodes for model in models] == [1, 2]


def test_a_bundle_without_the_head_it_is_for_is_refused(world, halves):
    retrieves, ranks = halves
    parts = {"store": world.memory, "item_tables": world.item_tables}

    with pytest.raises(InvalidInput, match="no retrieval head"):
        Pipeline(ranks, index=world.index, **parts)
    with pytest.raises(InvalidInput, match="no ranking head"):
        world.pipeline(ranking_bundle=retrieves)


def test_a_bundle_that_only_retrieves_ranks_by_the_score_of_retrieval(
    world, world_module, make, halves, tmp_path
):
    retrieves, _ = halves
    pipeline = Pipeline(
        retrieves,
        store=world.memory,
        item_tables=world.item_tables,
        index=build_index(retrieves, tmp_path / "index"),
    )
    [found] = pipeline.retrieve([make(RetrieveRequest, count=5)])
    [page] = pipeline.recommend([make(RecommendRequest, count=5)])
    backwards = ("unheard of", *reversed(ids_of(found)))

    [given] = pipeline.pre_rank([make(PreRankRequest, item_ids=backwards, count=6)])

    assert ids_of(page) == ids_of(found)
    assert ids_of(given) == [*ids_of(found), "unheard of"]
    scores = scores_of(given)
    assert scores.pop("unheard of") < min(scores.values())
    assert scores == pytest.approx(scores_of(found), abs=1e-5)
    assert page.model_version == retrieves.version


def test_requests_stop_reasoning_early_if_the_recipe_says_so(world, world_module, make, tmp_path):
    catalogue = world_module.make_catalogue(())
    world_module.make_bundle(tmp_path / "deep", catalogue, has_early_exit=True)
    deep = load_bundle(tmp_path / "deep")
    request = make(PreRankRequest, item_ids=world_module.MILK)

    def scores(least_change):
        recipe = ServingRecipe(least_change=least_change)
        [answer] = world.pipeline(ranking_bundle=deep, recipe=recipe).pre_rank([request])
        return scores_of(answer)

    full, hardly, at_once = scores(0.0), scores(1e-12), scores(1.0)

    assert hardly == pytest.approx(full, rel=1e-5)
    assert at_once != pytest.approx(full, rel=1e-5)


def test_a_bundle_that_was_not_trained_to_stop_early_is_refused_if_it_should(world):
    with pytest.raises(InvalidInput, match="has_early_exit"):
        world.pipeline(recipe=ServingRecipe(least_change=0.01))


def test_no_requests_get_no_answers(pipeline):
    assert pipeline.answer([]) == []


def test_candidates_between_the_stages_are_as_many_as_the_recipe_says(world, make):
    few = world.pipeline(recipe=ServingRecipe(num_candidates=3))

    [page] = few.recommend([make(RecommendRequest, count=2, retriever="popular")])
    [long] = few.recommend([make(RecommendRequest, count=10, retriever="popular")])

    assert set(ids_of(page)) <= {"milk-29", "milk-28", "milk-27"}
    assert len(long.items) == 10
