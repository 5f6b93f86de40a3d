"""A causal backbone keeps keys and values, so that rows can be read behind a sequence."""

# Shape suffixes: B = sequences, H = heads, S = positions, Q = rows to append, D = width,
#                 E = width of one head.

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from onepiece.models.inputs import ContextTensors
from onepiece.models.sequence import Sequences


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys and values of all positions in one layer."""

    keys_BHSE: Tensor
    values_BHSE: Tensor

    def append(self, later: "KeyValues") -> "KeyValues":
        """Puts Q more positions behind."""
        return KeyValues(
            torch.cat([self.keys_BHSE, later.keys_BHSE], dim=2),
            torch.cat([self.values_BHSE, later.values_BHSE], dim=2),
        )


@dataclass(frozen=True, slots=True)
class CausalState:
    """What a backbone keeps of B sequences after reading them and some rows behind them."""

    sequences: Sequences
    """The sequences without those rows; padding lies between them."""
    num_appended: int
    """Rows read behind each sequence."""
    caches: tuple[KeyValues, ...]
    """Keys and values of the S positions, then of the rows; one entry a layer."""
    last_BD: Tensor
    """(B, D) output at the last position or row."""

    @property
    def is_seen_BS(self) -> Tensor:
        """(B, S + appended + 1) bool, what the next row may see: all but padding."""
        is_real_BS = self.sequences.is_real_BS
        return torch.nn.functional.pad(is_real_BS, (0, self.num_appended + 1), value=True)


class CausalBackbone(Protocol):
    """Reads a sequence, then one row at a time, which may be an output of its own."""

    def read(self, context: ContextTensors) -> CausalState:
        """Reads each request's sequence."""
        ...

    def read_on(self, row_BD: Tensor, state: CausalState) -> CausalState:
        """Reads one more row, already embedded; it sees the sequence and earlier rows."""
        ...
