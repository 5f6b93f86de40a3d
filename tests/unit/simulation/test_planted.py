"""Planted worlds: their probabilities are exact, and only the request decides them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from onepiece.cli import main
from onepiece.errors import NotFound, OutputExists
from onepiece.events.schema import Action
from onepiece.features.store import Signals
from onepiece.simulation.planted import WORLDS, Budget, Cell, draw, find_variants, find_worlds
from onepiece.simulation.planted_chains import chain_places, mixed_length
from onepiece.simulation.planted_depth import depth_in_world
from onepiece.simulation.planted_gain import Gain, gain
from onepiece.simulation.planted_report import document, render, save
from onepiece.simulation.planted_variants import VARIANTS, variants_for
from onepiece.simulation.planted_world import (
    NUM_CANDIDATES,
    acted_on,
    candidate_feature,
    candidate_items,
)
from onepiece.training.spine import Stage

SMALL = Budget(num_training=20, num_validation=10, epochs=1)
each_world = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)


@each_world
def test_shoppers_order_as_often_as_the_exact_probabilities_say(world):
    random = np.random.default_rng(1)
    demand = world.demand(world.ask(random, world.shop), world.shop)
    num_shoppers = 10_000

    stages = np.stack([demand.sample(random) for _ in range(num_shoppers)])

    exact = demand.order_probabilities()
    deviation = np.sqrt(exact * (1 - exact) / num_shoppers)
    observed = (stages == Stage.ORDERED).mean(0)
    assert (np.abs(observed - exact) < 4.5 * deviation + 1e-9).all()


@each_world
def test_a_world_is_a_function_of_its_seed(world):
    first, again = draw(world, seed=3, budget=SMALL), draw(world, seed=3, budget=SMALL)
    other = draw(world, seed=4, budget=SMALL)

    assert (first.stages_RC == again.stages_RC).all()
    assert (first.probabilities_RC == again.probabilities_RC).all()
    ids = [[r.candidates.item_ids for r in drawn.requests] for drawn in (first, again, other)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


@each_world
def test_every_request_has_different_candidates_and_something_to_find(world):
    drawn = draw(world, seed=0, budget=SMALL)

    for request, probabilities in zip(drawn.requests, drawn.probabilities_RC, strict=True):
        assert len(set(request.candidates.item_ids)) == NUM_CANDIDATES
        assert probabilities.max() > 2 * probabilities.min()


@each_world
def test_the_place_of_a_candidate_says_nothing(world):
    drawn = draw(world, seed=0, budget=Budget(num_training=1_500, num_validation=0))

    by_place = drawn.probabilities_RC.mean(0)

    noise = drawn.probabilities_RC.std() / np.sqrt(1_500)
    assert (np.abs(by_place - by_place.mean()) < 4.5 * noise).all()


def test_a_cheaper_neighbour_of_the_same_type_lowers_demand_and_one_of_another_does_not():
    (world,) = find_worlds(["set"])
    request = world.ask(np.random.default_rng(0), world.shop)
    types = world.shop.type_N[candidate_items(request, world.shop)]
    prices = candidate_feature(request, "log_price")
    first = int(np.flatnonzero(types == types[0])[np.argmin(prices[types == types[0]])])
    utilities = world.demand(request, world.shop).utilities_C

    changed = request.candidates.features.copy()
    column = int(np.flatnonzero(np.isclose(changed[first], prices[first]))[0])
    changed[first, column] -= 1
    cheaper = replace(request, candidates=replace(request.candidates, features=changed))

    change = world.demand(cheaper, world.shop).utilities_C - utilities
    neighbours = (types == types[0]) & (np.arange(NUM_CANDIDATES) != first)
    assert (change[neighbours] < -1).all()
    assert (change[types != types[0]] == 0).all()


@pytest.mark.parametrize(
    ("name", "is_flat"),
    [("crowd", True), ("match", True), ("memory", True), ("null", False), ("set", False)],
)
def test_without_its_signals_a_world_has_nothing_to_find_unless_it_needs_none(name, is_flat):
    (world,) = find_worlds([name])
    request = world.ask(np.random.default_rng(0), world.shop)

    bare = world.demand(replace(request, signals=Signals()), world.shop).order_probabilities()

    assert (np.ptp(bare) < 1e-12) == is_flat


@pytest.mark.parametrize(("name", "length"), [("hops", 2), ("ladder", 3)])
def test_the_end_of_a_chain_shares_no_label_with_anything_the_user_touched(name, length):
    (world,) = find_worlds([name])
    shop = world.shop
    for seed in range(50):
        request = world.ask(np.random.default_rng(seed), shop)
        ends = candidate_items(request, shop)[chain_places(request, shop) == length]
        touched = shop.items(request.signals.recent.item_ids)

        assert len(ends) == NUM_CANDIDATES // length // 3
        assert not set(shop.maker_N[ends]) & set(shop.maker_N[touched])
        assert not set(shop.type_N[ends]) & set(shop.type_N[touched])
        assert acted_on(request.signals.recent, Action.CLICK)


def test_the_mixed_world_asks_for_no_hop_one_or_two_and_tells_which():
    (world,) = find_worlds(["mixed"])
    shop, seen = world.shop, set()
    for seed in range(30):
        request = world.ask(np.random.default_rng(seed), shop)
        length, places = mixed_length(request), chain_places(request, shop)
        best = world.demand(request, shop).order_probabilities()

        seen.add(length)
        assert places.max() == length
        assert ((best > 0.5) == (places == length)).all()

    assert seen == {1, 2, 3}


def test_depth_in_a_world_is_measured_as_a_share_of_its_optimum():
    (world,) = find_worlds(["mixed"])

    result = depth_in_world(world, num_steps=2, seed=0, budget=SMALL)

    assert [point.mean_steps for point in result.curve.fixed] == [0, 1, 2]
    assert all(0 < point.quality <= 1 for point in (*result.curve.fixed, *result.curve.early))
    assert result.has_early_exit
    assert sum(result.chosen.num_requests_J) == SMALL.num_validation // 2


def test_the_optimum_is_beaten_by_no_ranking_and_chance_is_the_mean_of_all():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), size=40)

    gains = [gain(random.normal(size=(40, 5)), probabilities) for _ in range(2_000)]

    assert all(one.reached <= one.optimum for one in gains)
    assert np.mean([one.reached for one in gains]) == pytest.approx(gains[0].chance, abs=2e-3)


def test_gain_is_probability_over_rank_and_ties_go_against_the_model():
    probabilities = np.array([[0.6, 0.3, 0.1]])

    best = gain(np.array([[3.0, 2.0, 1.0]]), probabilities)
    tied = gain(np.zeros((1, 3)), probabilities)

    assert best.reached == best.optimum == pytest.approx(0.6 + 0.3 / 2 + 0.1 / 3)
    assert best.share == best.skill == 1
    assert tied.reached == pytest.approx(0.1 + 0.3 / 2 + 0.6 / 3)
    assert tied.skill < 0


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(NotFound, match="no world 'moon'; there are set, crowd"):
        find_worlds(["moon"])
    with pytest.raises(NotFound, match="no variant 'best'; there are onepiece"):
        find_variants(["best"])


def test_every_variant_names_worlds_that_exist():
    names = {world.name for world in WORLDS}

    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS:
        assert {*variant.pays_in, *variant.only_in} <= names
    assert "K=6" in [variant.name for variant in variants_for("hops")]
    assert "K=6" not in [variant.name for variant in variants_for("set")]


def test_the_table_says_what_is_lost_where_it_is_needed_and_elsewhere():
    cells = [
        Cell(world, variant, seed, Gain(reached + 0.01 * seed, 0.5, 0.25))
        for seed in (0, 1)
        for world, variant, reached in (
            ("set", "onepiece", 0.49),
            ("set", "-visibility", 0.39),
            ("null", "onepiece", 0.48),
            ("null", "-visibility", 0.485),
        )
    ]

    text = render(cells)

    assert "| 99.0 +-1.4 | 97.0 +-1.4 |" in text
    assert "| -visibility | set +20.0 | -1.0 to -1.0 |" in text
    assert document(cells, SMALL).count('"share_of_optimum"') == 8


def test_a_result_is_saved_as_table_json_and_picture_and_never_over_another(tmp_path):
    cells = [
        Cell("set", "onepiece", 0, Gain(0.49, 0.5, 0.25)),
        Cell("null", "dlrm", 0, Gain(0.48, 0.5, 0.25)),
    ]

    save(tmp_path / "out", cells, SMALL)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "planted.json",
        "planted.md",
        "planted.png",
    ]
    assert (tmp_path / "out" / "planted.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "planted.json").read_text())["cells"][1]["skill"] < 1
    with pytest.raises(OutputExists):
        save(tmp_path / "out", cells, SMALL)


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--worlds", "moon"], ["--variants=best"]])
def test_a_misuse_of_the_verb_is_told_before_anything_is_trained(wrong, capsys):
    assert main(["simulation", "planted", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("wrong", [["--steps", "17"], ["--world", "moon"], ["--allowed-loss", "2"]])
def test_a_misuse_of_depth_is_told_before_anything_is_trained(wrong, capsys):
    assert main(["simulation", "depth", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
