"""Which row of a sequence may see which: bool tables, True where the row may see the column."""

# Shape suffixes: S = positions.

import torch
from torch import Tensor


def causal_mask(num_positions: int) -> Tensor:
    """Lets each position see itself and those before it: (S, S)."""
    return torch.ones(num_positions, num_positions, dtype=torch.bool).tril()
