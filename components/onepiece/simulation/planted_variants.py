"""What the planted benchmark compares: OnePiece, OnePiece with one thing off, and baselines.

A new model or switch is one more entry; nothing else knows the names.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from onepiece.context.recipe import ContextRecipe
from onepiece.models.dlrm_ranker import DlrmRankerRecipe
from onepiece.models.gru4rec import Gru4RecRecipe
from onepiece.models.hstu import HstuRecipe
from onepiece.models.rearec import ReaRecRecipe
from onepiece.models.recipe import OnePieceRecipe
from onepiece.models.registry import ModelRecipe
from onepiece.models.sasrec import SasRecRecipe

_CONTEXT = ContextRecipe()
_NO_ANCHORS = ContextRecipe(max_anchor_tokens=0)
_NO_MEMORY = ContextRecipe(
    max_recent_tokens=_CONTEXT.max_history_tokens,  # as many tokens in all
    max_memory_tokens=0,
)
_ONE_TASK = ("order",)


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table."""

    name: str
    says: str
    """What it is, in one line."""
    model: ModelRecipe
    context: ContextRecipe = _CONTEXT
    pays_in: tuple[str, ...] = ()
    """Worlds that need what is off here; in all others nothing should be lost without it."""
    only_in: tuple[str, ...] = ()
    """Worlds that it is trained in unless asked for elsewhere; empty for all."""


def _onepiece(
    *,
    group_size: int = 12,
    num_layers: int = 1,
    num_ranking_steps: int = 3,
    ranking_tasks: tuple[str, ...] = ("click", "cart", "order"),
    has_match_bias: bool = True,
    has_visible_candidates: bool = True,
    task_assignment: str = "progressive",
    has_early_exit: bool = False,
) -> OnePieceRecipe:
    """Makes the default recipe's ranking half, but for what is named."""
    return OnePieceRecipe.model_validate(
        {
            "retrieval_tasks": (),
            "group_size": group_size,
            "num_layers": num_layers,
            "num_ranking_steps": num_ranking_steps,
            "ranking_tasks": ranking_tasks,
            "has_match_bias": has_match_bias,
            "has_visible_candidates": has_visible_candidates,
            "task_assignment": task_assignment,
            "has_early_exit": has_early_exit,
        }
    )


_STEPS = ("hops", "ladder", "mixed")

VARIANTS: tuple[Variant, ...] = (
    Variant("onepiece", "OnePiece's ranking half, with the default recipe", _onepiece()),
    Variant(
        "-visibility",
        "candidates do not see one another",
        _onepiece(has_visible_candidates=False),
        pays_in=("set", *_STEPS),
    ),
    Variant("-anchors", "no preference anchors", _onepiece(), _NO_ANCHORS, pays_in=("crowd",)),
    Variant(
        "-match",
        "no match bias",
        _onepiece(has_match_bias=False),
        pays_in=("match", "crowd", "memory", *_STEPS),
    ),
    Variant(
        "-memory",
        "recent events only, as many tokens",
        _onepiece(),
        _NO_MEMORY,
        pays_in=("memory",),
    ),
    Variant("-steps", "no reasoning steps, K = 0", _onepiece(num_ranking_steps=0), pays_in=_STEPS),
    Variant(
        "-tasks",
        "the order alone is learned, K = 3",
        _onepiece(ranking_tasks=_ONE_TASK),
        pays_in=("funnel", *_STEPS),
    ),
    Variant(
        "-progress",
        "all three tasks on the last step",
        _onepiece(task_assignment="last"),
        pays_in=("funnel", *_STEPS),
    ),
    Variant(
        "nothing",
        "none of these: C = 1, K = 0, one task, recent events only",
        _onepiece(group_size=1, num_ranking_steps=0, ranking_tasks=_ONE_TASK, has_match_bias=False),
        ContextRecipe(
            max_recent_tokens=_CONTEXT.max_history_tokens,
            max_memory_tokens=0,
            max_anchor_tokens=0,
        ),
        pays_in=("set", "crowd", "funnel", "match", "memory", *_STEPS),
    ),
    Variant("dlrm", "DLRM ranker", DlrmRankerRecipe()),
    Variant("sasrec+pa", "SASRec that reads the anchors too", SasRecRecipe()),
    Variant("hstu+pa", "HSTU that reads the anchors too", HstuRecipe()),
    Variant("rearec+pa", "ReaRec that reads the anchors too", ReaRecRecipe()),
    Variant("gru4rec+pa", "GRU4Rec that reads the anchors too", Gru4RecRecipe()),
    Variant("C=1", "groups of one", _onepiece(group_size=1), only_in=("set",)),
    Variant("C=4", "groups of four", _onepiece(group_size=4), only_in=("set",)),
    Variant("K=1", "one step", _onepiece(num_ranking_steps=1), only_in=_STEPS),
    Variant("K=2", "two steps", _onepiece(num_ranking_steps=2), only_in=_STEPS),
    Variant("K=4", "four steps", _onepiece(num_ranking_steps=4), only_in=_STEPS),
    Variant("K=6", "six steps", _onepiece(num_ranking_steps=6), only_in=_STEPS),
    *(
        Variant(
            f"K={num_steps}+exit",
            f"K = {num_steps}, trained to be read at every depth, all steps taken",
            _onepiece(num_ranking_steps=num_steps, has_early_exit=True),
            only_in=_STEPS,
        )
        for num_steps in (1, 2, 3, 4, 6)
    ),
    Variant(
        "L=2",
        "two layers, no steps",
        _onepiece(num_layers=2, num_ranking_steps=0),
        only_in=_STEPS,
    ),
)
"""All variants, in the order of the table; the first is what the others are held against."""


def variants_for(world: str, *, among: Iterable[Variant] = VARIANTS) -> list[Variant]:
    """Lists the variants that are trained in a world unless others are asked for."""
    return [variant for variant in among if not variant.only_in or world in variant.only_in]
