"""How fast a training goes: tokens, share of time waiting for data, model FLOPs utilisation."""

# Shape suffixes: B = requests.

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from onepiece.models.protocols import Model
from onepiece.training.machine import Machine
from onepiece.training.packed import ExampleBatch

ItemT = TypeVar("ItemT")

_WINDOW_STEPS = 50
"""Steps over which speed is averaged; chosen here, as the loss curve's."""
_PEAK_SIZE, _PEAK_ROUNDS = 1_024, 5


@dataclass(frozen=True, slots=True)
class Throughput:
    """Speed of this worker over the last steps."""

    tokens_per_s: float
    """Real tokens (query, context, candidates) a second; padding is not counted."""
    data_wait_share: float
    """Part of the time in which the step waited for its batch, in [0, 1]."""
    model_flops_share: float | None
    """Model FLOPs utilisation, in [0, 1]; None without a known peak."""


class FlopCounter:
    """Counts what a step needs by a formula, from a model's sizes and a batch's real tokens.

    FLOPs = 6 N T + 12 L d sum_b S_b^2. N are the weights in matrices, tables of embeddings left
    out; T = sum_b S_b are the tokens: the query, those of the context, and the candidates; L and
    d are `num_layers` and `width` of the model's recipe, and without them the second term is 0.
    It does not count padding, reasoning blocks, or a mask's savings, nor what a loss computes
    against a whole catalogue; so it is what the model needs at least, not what the device does.

    Source:
        PaLM (arXiv:2204.02311), appendix B: model FLOPs utilisation; 6 N a token for forward and
        backward pass, 12 L H Q S for attention, H Q = d.
    """

    def __init__(self, model: Model) -> None:
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        self._num_weights = sum(
            p.numel()
            for p in model.parameters()
            if p.requires_grad and p.ndim >= 2 and id(p) not in tables
        )
        layers, width = (getattr(model.recipe, name, 0) for name in ("num_layers", "width"))
        self._attention = 12 * layers * width

    def flops(self, batch: ExampleBatch) -> float:
        """Counts one batch, forward and backward."""
        sizes_B = _sizes(batch)
        return 6.0 * self._num_weights * sum(sizes_B) + self._attention * sum(
            size * size for size in sizes_B
        )


class Meter:
    """Takes the time of steps and of the waits between them."""

    def __init__(self, model: Model, machine: Machine, clock: Callable[[], float]) -> None:
        self._counter = FlopCounter(model)
        self._peak = machine.peak_flops_per_s
        self._clock = clock
        self._wait_s = 0.0
        self._last_s = clock()
        # Seconds, seconds waited, tokens and FLOPs of each of the last steps.
        self._steps: deque[tuple[float, float, float, float]] = deque(maxlen=_WINDOW_STEPS)

    def waits(self, source: Iterable[ItemT]) -> Iterator[ItemT]:
        """Yields what `source` does and counts the time until each one is there as waiting."""
        iterator = iter(source)
        while True:
            before_s = self._clock()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._wait_s = self._clock() - before_s
            yield item

    def after_step(self, parts: Sequence[ExampleBatch]) -> Throughput:
        """Tells the speed, after a step on these micro-batches."""
        now_s = self._clock()
        tokens = float(sum(sum(_sizes(part)) for part in parts))
        flops = sum(self._counter.flops(part) for part in parts)
        self._steps.append((now_s - self._last_s, self._wait_s, tokens, flops))
        self._last_s = now_s
        elapsed_s, wait_s, num_tokens, num_flops = (
            sum(column) for column in zip(*self._steps, strict=True)
        )
        elapsed_s = max(elapsed_s, 1e-9)
        return Throughput(
            tokens_per_s=num_tokens / elapsed_s,
            data_wait_share=min(wait_s / elapsed_s, 1.0),
            model_flops_share=num_flops / elapsed_s / self._peak if self._peak else None,
        )


def measured_peak(device: torch.device, clock: Callable[[], float]) -> float:
    """Measures FLOPs a second of a float32 matrix product, the best of a few rounds.

    It stands in for a data sheet where there is none, as on a CPU of which only some cores are
    used; a product of two 1,024 x 1,024 matrices costs 2 * 1,024^3.
    """
    one, other = (torch.ones(_PEAK_SIZE, _PEAK_SIZE, device=device) for _ in range(2))
    best_s = float("inf")
    for _ in range(_PEAK_ROUNDS):
        before_s = clock()
        float((one @ other)[0, 0])  # Reading a value waits for a GPU.
        best_s = min(best_s, clock() - before_s)
    return 2.0 * _PEAK_SIZE**3 / max(best_s, 1e-9)


def _sizes(batch: ExampleBatch) -> list[int]:
    """Counts each request's tokens: the query, those of its context and its candidates."""
    context = batch.context
    sizes_B: list[int] = (1 + context.token_mask.sum(1) + context.candidate_mask.sum(1)).tolist()
    return sizes_B
