"""What a training runs on: nothing of it is in a recipe, and nothing of it changes the result."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from onepiece.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Machine:
    """A device, and what is needed to say how fast it works."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where model and batches lie; on a GPU the sum of many gradients may differ in its last
    bits from one run to another."""
    clock: Callable[[], float] | None = None
    """Seconds, ascending; None measures no throughput."""
    peak_flops_per_s: float | None = None
    """What the device could do; None leaves model FLOPs utilisation out."""


def find_device(name: str) -> torch.device:
    """Finds a device by name; `auto` is the GPU if there is one, and the CPU otherwise.

    Raises:
        InvalidInput: `name` is none of auto, cpu and cuda, or there is no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"device is {name!r}; give auto, cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InvalidInput("device is cuda but torch finds no GPU here; give auto or cpu")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
