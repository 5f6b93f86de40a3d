"""The planted benchmark: trains each variant in each world and measures it against the optimum."""

# Shape suffixes: R = requests, C = candidates.

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onepiece.context.builder import build_context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.request import Candidates, ContextRequest
from onepiece.context.vocabulary import build_vocabulary
from onepiece.errors import NotFound
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.protocols import Model
from onepiece.simulation.planted_chains import CHAIN_WORLDS
from onepiece.simulation.planted_gain import Gain, gain
from onepiece.simulation.planted_variants import VARIANTS, Variant, variants_for
from onepiece.simulation.planted_world import World
from onepiece.simulation.planted_worlds import SIMPLE_WORLDS
from onepiece.training.loop import train
from onepiece.training.packed import Example, Examples, open_examples, write_examples
from onepiece.training.recipe import TrainingRecipe

WORLDS: tuple[World, ...] = (*SIMPLE_WORLDS, *CHAIN_WORLDS)
"""All worlds, in the order of the table."""
_SCORED_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Budget:
    """How much every variant may learn from; the same for all of them."""

    num_training: int = 6_000
    """Requests trained on; chosen here: a few thousand, so that a training takes seconds."""
    num_validation: int = 1_000
    """Requests measured on; few are enough, since their probabilities are exact."""
    epochs: int = 4


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant in one world with one seed."""

    world: str
    variant: str
    seed: int
    gain: Gain


@dataclass(frozen=True)
class Drawn:
    """A world with its requests, what shoppers did, and what they would do in the mean."""

    world: World
    requests: tuple[ContextRequest, ...]
    stages_RC: NDArray[np.int8]
    probabilities_RC: NDArray[np.float64]
    num_training: int
    """The first requests are trained on, the others are measured on."""


def draw(world: World, *, seed: int, budget: Budget) -> Drawn:
    """Draws the requests of a world; a pure function of the world's name, seed and budget."""
    random = np.random.default_rng([seed, *world.name.encode()])
    num_requests = budget.num_training + budget.num_validation
    requests = tuple(_shuffled(world.ask(random, world.shop), random) for _ in range(num_requests))
    demands = [world.demand(request, world.shop) for request in requests]
    return Drawn(
        world=world,
        requests=requests,
        stages_RC=np.stack([demand.sample(random) for demand in demands]),
        probabilities_RC=np.stack([demand.order_probabilities() for demand in demands]),
        num_training=budget.num_training,
    )


def fit_and_measure(
    drawn: Drawn, examples: Examples, variant: Variant, *, seed: int, budget: Budget
) -> Gain:
    """Trains one variant as every other model is trained, and measures it where truth is known."""
    recipe = TrainingRecipe(
        context=variant.context, model=variant.model, epochs=budget.epochs, seed=seed
    )
    model = train(examples, recipe).model
    rows = examples.rows(is_validation=True)
    return gain(_order_scores(model, examples, rows), drawn.probabilities_RC[rows])


def run(
    worlds: Sequence[World],
    variants: Sequence[Variant] | None,
    *,
    seeds: Sequence[int],
    budget: Budget,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """Trains and measures variants in worlds, seed by seed.

    Args:
        worlds: Where.
        variants: What, in each of the worlds; None takes the variants meant for each.
        seeds: Of requests, of what shoppers do and of the models' weights.
        budget: How much each may learn from.
        on_cell: Called after each training.
    """
    cells: list[Cell] = []
    for seed in seeds:
        for world in worlds:
            drawn = draw(world, seed=seed, budget=budget)
            mine = variants_for(world.name) if variants is None else variants
            with tempfile.TemporaryDirectory() as folder:
                opened: dict[ContextRecipe, Examples] = {}
                for variant in mine:
                    context = variant.context
                    if context not in opened:
                        out = Path(folder) / str(len(opened))
                        opened[context] = write(drawn, context, out)
                    measured = fit_and_measure(
                        drawn, opened[context], variant, seed=seed, budget=budget
                    )
                    cells.append(Cell(world.name, variant.name, seed, measured))
                    on_cell(cells[-1])
    return cells


def write(drawn: Drawn, context: ContextRecipe, out: Path) -> Examples:
    """Writes a world's requests as examples with one context recipe, and opens them."""
    world = drawn.world
    vocabulary = build_vocabulary(world.shop.catalogue, query_ids=world.query_ids, order_counts={})

    def examples() -> Iterator[Example]:
        for number, request in enumerate(drawn.requests):
            yield Example(
                context=build_context(request, context, vocabulary),
                stages=drawn.stages_RC[number],
                seed=number,
                user_code=number,
                as_of_ms=request.as_of_ms,
                is_validation=number >= drawn.num_training,
            )

    write_examples(out, examples(), vocabulary=vocabulary, context=context)
    return open_examples(out, context=context)


def find_worlds(names: Sequence[str]) -> list[World]:
    """Finds worlds by name, in the order given.

    Raises:
        NotFound: There is no such world.
    """
    by_name = {world.name: world for world in WORLDS}
    _check_names("world", names, by_name)
    return [by_name[name] for name in names]


def find_variants(names: Sequence[str]) -> list[Variant]:
    """Finds variants by name, in the order given.

    Raises:
        NotFound: There is no such variant.
    """
    by_name = {variant.name: variant for variant in VARIANTS}
    _check_names("variant", names, by_name)
    return [by_name[name] for name in names]


def _shuffled(request: ContextRequest, random: np.random.Generator) -> ContextRequest:
    """Puts candidates in random order, so that their places say nothing."""
    given = request.candidates
    order_C = random.permutation(len(given.item_ids))
    item_ids = tuple(given.item_ids[place] for place in order_C)
    return replace(request, candidates=Candidates(item_ids, given.features[order_C]))


def _order_scores(
    model: Model, examples: Examples, rows_R: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores the candidates of some examples for the order: (R, C)."""
    task = list(model.recipe.ranking_tasks).index("order")
    scores: list[NDArray[np.float64]] = []
    with torch.inference_mode():
        for start in range(0, len(rows_R), _SCORED_AT_ONCE):
            batch = examples.batch(rows_R[start : start + _SCORED_AT_ONCE])
            candidates = candidate_tensors(
                batch.context, group_size=model.recipe.group_size, seeds_B=batch.seeds
            )
            encoding = model.encode_context(context_tensors(batch.context))
            scores.append(model.score_candidates(encoding, candidates)[..., task].double().numpy())
    return np.concatenate(scores)


def _check_names(what: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise NotFound(f"there is no {what} {name!r}; there are {', '.join(known)}")
