"""Turns a padded numpy batch into tensors, and splits candidates into groups.

The split decides which candidates see one another, so it must not depend on the order in which
they were given: it sorts them by a hash of the candidate and the request's seed. Copies of a
candidate share one slot, so they get one score and change nobody else's.
"""

# Shape suffixes: B = requests, T = tokens, F = features, P = profile fields, W = words,
#                 N = candidates as given, G = groups, M = slots of a group.

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepiece.context.batching import ContextBatch

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_PADDING_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)

GroupSize = int | Literal["all"]
"""Most candidates that are scored together."""


@dataclass(frozen=True, slots=True)
class ContextTensors:
    """The contexts of B requests without their candidates; fields as in `Context`."""

    item_rows_BT: Tensor
    """(B, T) int64 rows of the item table; 0 for padding and group boundaries."""
    kinds_BT: Tensor
    """(B, T) int64 `TokenKind`; 0 is padding."""
    positions_BT: Tensor
    """(B, T) int64."""
    actions_BT: Tensor
    """(B, T) int64 `Action`; 0 for none."""
    features_BTF: Tensor
    """(B, T, len(TOKEN_FEATURES)) float32."""
    profile_BP: Tensor
    """(B, len(PROFILE_FIELDS)) int64."""
    query_B: Tensor
    """(B,) int64 rows of the queries."""
    words_BW: Tensor
    """(B, W) int64 rows of the queries' words; 0 is padding."""
    situation_BF: Tensor
    """(B, len(SITUATION_FEATURES)) float32."""


@dataclass(frozen=True, slots=True)
class CandidateTensors:
    """Candidates in their groups, and where each candidate as given went."""

    rows_BGM: Tensor
    """(B, G, M) int64 rows of the item table; 0 is an empty slot."""
    features_BGMF: Tensor
    """(B, G, M, len(CANDIDATE_FEATURES)) float32."""
    slot_BN: Tensor
    """(B, N) int64 index into the G * M slots; 0 for padding."""
    mask_BN: Tensor
    """(B, N) bool, True for a candidate, False for padding."""


def context_tensors(batch: ContextBatch, *, device: torch.device | None = None) -> ContextTensors:
    """Wraps a padded numpy batch; on the CPU, the default, the tensors share its memory."""

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device)

    return ContextTensors(
        item_rows_BT=tensor(batch.item_rows),
        kinds_BT=tensor(batch.kinds),
        positions_BT=tensor(batch.positions),
        actions_BT=tensor(batch.actions),
        features_BTF=tensor(batch.token_features),
        profile_BP=tensor(batch.profile_codes),
        query_B=tensor(batch.query_row),
        words_BW=tensor(batch.word_rows),
        situation_BF=tensor(batch.situation),
    )


def candidate_tensors(
    batch: ContextBatch,
    *,
    group_size: GroupSize,
    seeds_B: NDArray[np.int64] | None = None,
    device: torch.device | None = None,
) -> CandidateTensors:
    """Splits each request's candidates into groups of at most `group_size`.

    Groups of one request differ in size by at most one. The same candidates and seed always
    give the same groups, in whatever order and however often a candidate is given.

    Args:
        batch: Padded contexts; candidate row 0 is padding, 1 an item the vocabulary lacks.
        group_size: Most candidates of a group, at least 1; "all" makes one group a request.
        seeds_B: (B,) one seed a request; zeros if None.
        device: Where the tensors lie; the CPU if None.

    Source:
        OnePiece (arXiv:2509.18091), 3.2, grouped set-wise ranking; the hash is ours.
    """
    rows_BN, features_BNF = batch.candidate_rows, batch.candidate_features
    rank_BN, num_unique_B = _unique_ranks(rows_BN, features_BNF, seeds_B)
    mask_BN = rows_BN != 0
    num_groups_B = np.ones_like(num_unique_B)
    if group_size != "all":
        num_groups_B = np.maximum(1, -(-num_unique_B // group_size))
    num_groups = int(num_groups_B.max(initial=1))
    num_slots = int((-(-num_unique_B // num_groups_B)).max(initial=1)) or 1
    slot_BN = rank_BN % num_groups_B[:, None] * num_slots + rank_BN // num_groups_B[:, None]
    slot_BN = np.where(mask_BN, slot_BN, 0)

    shape = (len(rows_BN), num_groups * num_slots)
    slot_rows = np.zeros(shape, dtype=np.int64)
    slot_features = np.zeros((*shape, features_BNF.shape[-1]), dtype=np.float32)
    request, column = np.nonzero(mask_BN)
    slot_rows[request, slot_BN[request, column]] = rows_BN[request, column]
    slot_features[request, slot_BN[request, column]] = features_BNF[request, column]
    grouped = (shape[0], num_groups, num_slots)
    return CandidateTensors(
        rows_BGM=torch.from_numpy(slot_rows.reshape(grouped)).to(device),
        features_BGMF=torch.from_numpy(slot_features.reshape(*grouped, -1)).to(device),
        slot_BN=torch.from_numpy(slot_BN).to(device),
        mask_BN=torch.from_numpy(mask_BN).to(device),
    )


def _unique_ranks(
    rows_BN: NDArray[np.int64],
    features_BNF: NDArray[np.float32],
    seeds_B: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks each candidate by its hash; copies share a rank. Returns ranks and their number."""
    if rows_BN.shape[1] == 0:
        return np.zeros(rows_BN.shape, dtype=np.int64), np.zeros(len(rows_BN), dtype=np.int64)
    keys_BN = _hash(rows_BN, features_BNF, seeds_B)
    order_BN = np.argsort(keys_BN, axis=1, kind="stable")
    sorted_BN = np.take_along_axis(keys_BN, order_BN, axis=1)
    is_new_BN = sorted_BN != _PADDING_KEY
    is_new_BN[:, 1:] &= sorted_BN[:, 1:] != sorted_BN[:, :-1]
    rank_BN = np.empty_like(rows_BN)
    np.put_along_axis(rank_BN, order_BN, np.cumsum(is_new_BN, axis=1) - 1, axis=1)
    return rank_BN, is_new_BN.sum(axis=1)


def _hash(
    rows_BN: NDArray[np.int64],
    features_BNF: NDArray[np.float32],
    seeds_B: NDArray[np.int64] | None,
) -> NDArray[np.uint64]:
    """Hashes row, features and seed to 63 bits; padding gets the greatest key."""
    seeds = np.zeros(len(rows_BN), np.int64) if seeds_B is None else seeds_B
    keys_BN = mix(rows_BN.astype(np.uint64) ^ mix(seeds.astype(np.uint64))[:, None])
    bits_BNF = np.ascontiguousarray(features_BNF, dtype=np.float32).view(np.uint32)
    for column in range(bits_BNF.shape[-1]):
        keys_BN = mix(keys_BN ^ bits_BNF[..., column].astype(np.uint64))
    return np.where(rows_BN == 0, _PADDING_KEY, keys_BN >> np.uint64(1))


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes each number to another one, evenly and without a collision.

    Source:
        The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    """
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
