"""The conventional ranker: LightGBM's LambdaRank on hand-made features of session and list.

It reads the packed examples of the models, so it can be trained wherever they can, and measured by
the same lines. LightGBM is not locked with the rest: install the extra `baselines`.
"""

# Shape suffixes: B = requests, N = candidates, T = tokens, F = features, M = rows of all lists.

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from onepiece.context.builder import SITUATION_FEATURES, TOKEN_FEATURES, TokenKind
from onepiece.context.request import CANDIDATE_FEATURES
from onepiece.context.vocabulary import FIRST_ROW, ITEM_COLUMNS, Vocabulary
from onepiece.errors import InvalidInput
from onepiece.training.list_matches import find_matches, is_history
from onepiece.training.packed import ExampleBatch, Examples
from onepiece.training.page_features import PRICE, display_ranks

_LISTS_AT_ONCE = 512
"""Lists whose features are computed at a time; chosen here: some MiB."""
_ANCHORS = (TokenKind.EXPOSED_ANCHOR, TokenKind.CLICKED_ANCHOR, TokenKind.ORDERED_ANCHOR)
FEATURES: tuple[str, ...] = (
    *CANDIDATE_FEATURES,
    *SITUATION_FEATURES,
    *(f"own_{name}" for name in TOKEN_FEATURES),
    "own_recency",
    "own_action",
    "num_in_list",
    "num_met_in_list",
    "display_rank",
    "display_rank_of_newest",
    "display_rank_since_newest",
    "greatest_display_rank_met",
    "share_of_own_clicks",
    "price_since_newest",
    *(f"num_history_of_same_{name.removesuffix('_codes')}" for name in ITEM_COLUMNS),
    *(f"{kind.name.lower()}_rank" for kind in _ANCHORS),
)
"""Columns of what `list_features` gives; chosen here, after data.md's 24 features of trivago."""


class ConventionalRecipe(BaseModel):
    """How LambdaRank is trained; chosen here, untuned, never on the test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(0.05, gt=0, le=1, description="Shrinkage of each tree.")
    num_leaves: int = Field(15, ge=2, le=4_096, description="Leaves of a tree.")
    min_rows_in_leaf: int = Field(50, ge=1, le=1_000_000, description="Fewest rows of a leaf.")
    feature_share: float = Field(0.7, gt=0, le=1, description="Share of features of each tree.")
    row_share: float = Field(0.8, gt=0, le=1, description="Share of rows drawn for each tree.")
    max_trees: int = Field(600, ge=1, le=100_000, description="Most trees.")
    patience_trees: int = Field(
        60,
        ge=1,
        le=10_000,
        description="Trees without a better validation NDCG after which to end.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of all draws.")


@dataclass(frozen=True)
class ConventionalRanker:
    """A trained LambdaRank."""

    booster: Any
    """`lightgbm.Booster`."""
    vocabulary: Vocabulary
    num_trees: int
    """Trees that validation chose."""

    def scores(self, batch: ExampleBatch) -> NDArray[np.float64]:
        """Scores a batch: (B, N); see `list_ranking.Scores`."""
        features_BNF = list_features(batch, self.vocabulary)
        scores_BN = np.zeros(features_BNF.shape[:2])
        is_real_BN = batch.context.candidate_mask
        scores_BN[is_real_BN] = self.booster.predict(features_BNF[is_real_BN])
        return scores_BN


def train_conventional(examples: Examples, recipe: ConventionalRecipe) -> ConventionalRanker:
    """Trains on the training lists; the validation lists say after how many trees to end.

    The grade of an item is its `Stage` less that of an item only seen: 0 to 3.

    Raises:
        InvalidInput: LightGBM is not installed, or there are no validation lists.

    Source:
        Burges, From RankNet to LambdaRank to LambdaMART, 2010; Ke et al., LightGBM, NIPS 2017.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise InvalidInput(
            "LightGBM is not installed; run: pip install 'onepiece-platform[baselines]'"
        ) from error
    if not len(examples.rows(is_validation=True)):
        raise InvalidInput(
            "the examples have no validation lists, which say when to end; build them with some"
        )
    sets = []
    for is_validation in (False, True):
        features_MF, grades_M, sizes_R = _rows(examples, is_validation=is_validation)
        sets.append(lightgbm.Dataset(features_MF, grades_M, group=sizes_R))
    booster = lightgbm.train(
        {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [10],
            "learning_rate": recipe.learning_rate,
            "num_leaves": recipe.num_leaves,
            "min_data_in_leaf": recipe.min_rows_in_leaf,
            "feature_fraction": recipe.feature_share,
            "bagging_fraction": recipe.row_share,
            "bagging_freq": 1,
            "seed": recipe.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        },
        sets[0],
        num_boost_round=recipe.max_trees,
        valid_sets=[sets[1]],
        callbacks=[lightgbm.early_stopping(recipe.patience_trees, verbose=False)],
    )
    return ConventionalRanker(booster, examples.vocabulary, int(booster.best_iteration))


def list_features(batch: ExampleBatch, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Computes `FEATURES` of every candidate: (B, N, F); those of padding mean nothing.

    What compares a candidate with the newest item met compares with that item where the list
    has it, and is NaN where it does not.
    """
    context, matches = batch.context, find_matches(batch)
    shape = context.candidate_rows.shape
    is_real_BN = context.candidate_mask
    ranks_BN = display_ranks(context.candidate_features)
    newest_BN = _newest_in_list(matches.recency_BN, matches.is_met_BN)
    rank_of_newest_B1 = _of_newest(ranks_BN.astype(np.float64), newest_BN)
    prices_BN = context.candidate_features[..., PRICE].astype(np.float64)
    clicks_BN = np.expm1(matches.features_BNF[..., TOKEN_FEATURES.index("log_num_clicks")])
    num_clicks_B1 = np.maximum(clicks_BN.sum(1, keepdims=True), 1.0)
    columns: list[NDArray[Any]] = [
        *np.moveaxis(context.candidate_features, -1, 0),
        *(np.broadcast_to(values_B[:, None], shape) for values_B in context.situation.T),
        *np.moveaxis(matches.features_BNF, -1, 0),
        matches.recency_BN,
        matches.action_BN,
        np.broadcast_to(is_real_BN.sum(1, keepdims=True), shape),
        np.broadcast_to(matches.is_met_BN.sum(1, keepdims=True), shape),
        ranks_BN,
        np.broadcast_to(rank_of_newest_B1, shape),
        ranks_BN - rank_of_newest_B1,
        np.broadcast_to((ranks_BN * matches.is_met_BN).max(1, keepdims=True, initial=0), shape),
        clicks_BN / num_clicks_B1,
        prices_BN - _of_newest(prices_BN, newest_BN),
        *_same_side_features(batch, vocabulary),
        *(_anchor_ranks(batch, kind) for kind in _ANCHORS),
    ]
    return np.stack([column.astype(np.float32) for column in columns], axis=-1)


def _newest_in_list(
    recency_BN: NDArray[np.int64], is_met_BN: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Says which candidate is the one met last: (B, N), none where the list has none."""
    newest_BN: NDArray[np.bool_] = is_met_BN & (
        recency_BN == recency_BN.min(1, keepdims=True, initial=10**9)
    )
    return newest_BN


def _of_newest(values_BN: NDArray[np.float64], newest_BN: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Takes the value of the candidate met last: (B, 1), NaN without one."""
    sums_B1 = (values_BN * newest_BN).sum(1, keepdims=True)
    return np.where(newest_BN.any(1, keepdims=True), sums_B1, np.nan)


def _same_side_features(batch: ExampleBatch, vocabulary: Vocabulary) -> list[NDArray[np.int64]]:
    """Counts the history's items that share each side feature with a candidate."""
    rows_BN, rows_BT = batch.context.candidate_rows, batch.context.item_rows
    is_history_BT = is_history(batch)
    counts = []
    for column in ITEM_COLUMNS:
        codes = getattr(vocabulary, column)
        codes_BN, codes_BT = codes[rows_BN], codes[rows_BT]
        is_known_BT = is_history_BT & (codes_BT >= FIRST_ROW)
        is_same_BNT = (codes_BN[:, :, None] == codes_BT[:, None, :]) & is_known_BT[:, None, :]
        counts.append(is_same_BNT.sum(-1))
    return counts


def _anchor_ranks(batch: ExampleBatch, kind: TokenKind) -> NDArray[np.float64]:
    """Gives each candidate's place in an anchor group, 1 for the best; NaN where it is not in."""
    context = batch.context
    is_anchor_BT = (context.kinds == kind) & (context.item_rows >= FIRST_ROW)
    is_same_BNT = context.candidate_rows[:, :, None] == context.item_rows[:, None, :]
    is_same_BNT &= is_anchor_BT[:, None, :]
    ranks_BN = (is_same_BNT * (context.positions[:, None, :] + 1)).max(-1, initial=0)
    return np.where(ranks_BN > 0, ranks_BN, np.nan)


def _rows(
    examples: Examples, *, is_validation: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Lays all lists one below the other: features (M, F), grades (M,), sizes of the lists."""
    rows = examples.rows(is_validation=is_validation)
    features, grades, sizes = [], [], []
    for start in range(0, len(rows), _LISTS_AT_ONCE):
        batch = examples.batch(rows[start : start + _LISTS_AT_ONCE])
        is_real_BN = batch.context.candidate_mask
        features.append(list_features(batch, examples.vocabulary)[is_real_BN])
        grades.append(np.maximum(batch.stages[is_real_BN] - 1, 0))
        sizes.append(is_real_BN.sum(1))
    return np.concatenate(features), np.concatenate(grades), np.concatenate(sizes)
