"""Which row of a sequence may see which: bool tables, True where the row may see the column."""

# Shape suffixes: T = positions of the context, M = candidates of a group, S = T + M positions.

import torch
from torch import Tensor


def causal_mask(num_positions: int, *, device: torch.device) -> Tensor:
    """Lets each position see itself and those before it: (T, T)."""
    return torch.ones(num_positions, num_positions, dtype=torch.bool, device=device).tril()


def alone_mask(num_candidates: int, *, device: torch.device) -> Tensor:
    """Lets each candidate see itself and no other: (M, M)."""
    return torch.eye(num_candidates, dtype=torch.bool, device=device)


def literal_mask(num_context: int, visible_MM: Tensor) -> Tensor:
    """Lets context and candidates see each other; candidates see candidates as told: (S, S).

    Args:
        num_context: T, positions of the context; the candidates come behind.
        visible_MM: (M, M) bool, which candidate may see which; the result lies where it does.

    Source:
        OnePiece (arXiv:2509.18091), 3.3.1 and table 5.
    """
    num_positions = num_context + len(visible_MM)
    visible_SS = torch.ones(
        num_positions, num_positions, dtype=torch.bool, device=visible_MM.device
    )
    visible_SS[num_context:, num_context:] = visible_MM
    return visible_SS
