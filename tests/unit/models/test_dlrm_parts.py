import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onepiece.models.dlrm_parts import (
    CrossNetwork,
    DinUnit,
    FieldGate,
    TextCnn,
    ZeroAttention,
    mean_pool,
)
from onepiece.models.dlrm_ranker import PartsAttention, ResFlow

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def _randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _loud(module: nn.Module) -> nn.Module:
    """Gives every weight a size at which a wrong one is seen."""
    for place, parameter in enumerate(module.parameters()):
        parameter.data = 0.5 * _randn(100 + place, *parameter.shape)
    return module.eval()


def _numpy(module: nn.Module, name: str) -> np.ndarray:
    return module.get_parameter(name).detach().numpy()


def _affine(module: nn.Module, name: str, x: np.ndarray) -> np.ndarray:
    return _numpy(module, f"{name}.weight") @ x + _numpy(module, f"{name}.bias")


def _prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, slope * x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


SEQUENCES = torch.tensor(
    [[[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]], [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]], dtype=torch.bool
)


@pytest.mark.parametrize("is_normalised", [False, True])
@pytest.mark.parametrize("extra_width", [0, 2])
def test_din_weighs_each_token_by_target_token_difference_and_product(
    is_normalised: bool, extra_width: int
) -> None:
    unit = _loud(DinUnit(3, extra_width=extra_width, hidden_width=6, is_normalised=is_normalised))
    target, keys, extra = _randn(1, 2, 4, 3), _randn(2, 2, 5, 3), _randn(3, 2, 5, extra_width)

    read = unit(target, keys, extra, SEQUENCES).detach().numpy()

    def weight(q: np.ndarray, k: np.ndarray, e: np.ndarray) -> float:
        x = np.concatenate([q, k, q - k, q * k, e])
        x = _prelu(_affine(unit, "first", x), _numpy(unit, "first_bend.weight"))
        x = _prelu(_affine(unit, "second", x), _numpy(unit, "second_bend.weight"))
        return float(_affine(unit, "last", x)[0])

    for b, n, p in np.ndindex(2, 4, 2):
        tokens = [t for t in range(5) if SEQUENCES[b, p, t]]
        weights = np.array([weight(target[b, n], keys[b, t], extra[b, t]) for t in tokens])
        if is_normalised and tokens:
            weights = np.exp(weights) / np.exp(weights).sum()
        expected = np.zeros(3 + extra_width)
        for a, t in zip(weights, tokens, strict=True):
            expected += a * np.concatenate([keys[b, t], extra[b, t]])
        np.testing.assert_allclose(read[b, n, p], expected, **TOLERANCE)


def test_din_counts_how_often_unless_its_weights_are_normalised() -> None:
    target, key = _randn(1, 1, 1, 3), _randn(2, 1, 1, 3)
    once, twice = (torch.ones(1, 1, count, dtype=torch.bool) for count in (1, 2))

    def read(is_normalised: bool, mask: Tensor) -> Tensor:
        unit = _loud(DinUnit(3, extra_width=0, hidden_width=4, is_normalised=is_normalised))
        keys = key.expand(-1, mask.shape[-1], -1)
        return unit(target, keys, keys[..., :0], mask)

    torch.testing.assert_close(read(False, twice), 2 * read(False, once))
    torch.testing.assert_close(read(True, twice), read(True, once))


def test_zero_attention_weighs_tokens_beside_nothing() -> None:
    attention = _loud(ZeroAttention(4, 3, num_heads=2))
    query, rows = _randn(1, 2, 4), _randn(2, 2, 5, 3)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)

    read = attention(query, rows, mask).detach().numpy()

    w_h = _numpy(attention, "heads.weight")[0]
    for b in range(2):
        by_head = np.tanh(_affine(attention, "project", query[b].numpy())).reshape(3, 2)
        tokens = [t for t in range(5) if mask[b, t]]
        exps = np.array([np.exp((rows[b, t].numpy() @ by_head) @ w_h) for t in tokens])
        of_zero = np.exp((np.zeros(3) @ by_head) @ w_h)
        expected = sum(
            e / (of_zero + exps.sum()) * rows[b, t].numpy()
            for e, t in zip(exps, tokens, strict=True)
        )
        np.testing.assert_allclose(read[b], expected, **TOLERANCE)


def test_zero_attention_can_attend_to_nothing() -> None:
    attention = _loud(ZeroAttention(2, 2, num_heads=1))
    nn.init.zeros_(attention.project.weight)
    attention.project.bias.data = torch.tensor([3.0, 3.0])
    attention.heads.weight.data = torch.tensor([[10.0]])
    query, mask = torch.ones(1, 2), torch.ones(1, 3, dtype=torch.bool)
    liked = torch.ones(1, 3, 2)

    torch.testing.assert_close(attention(query, liked, mask), liked[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(attention(query, -liked, mask), 0 * liked[:, 0], atol=1e-4, rtol=0)
    assert torch.equal(attention(query, liked, ~mask), torch.zeros(1, 2))
    assert torch.equal(attention(query, liked[:, :0], mask[:, :0]), torch.zeros(1, 2))


def test_the_cross_network_multiplies_with_its_input_in_each_layer() -> None:
    network = _loud(CrossNetwork(4, num_layers=3, rank=2))
    x_0 = _randn(1, 4)

    crossed = network(x_0).detach().numpy()

    x, first = x_0.numpy(), x_0.numpy()
    for layer in range(3):
        w = _numpy(network, f"widen.{layer}.weight") @ _numpy(network, f"narrow.{layer}.weight")
        x = first * (w @ x + _numpy(network, f"widen.{layer}.bias")) + x
    np.testing.assert_allclose(crossed, x, **TOLERANCE)


def test_the_gate_weighs_each_field_by_the_means_of_all() -> None:
    gate = _loud(FieldGate(5))
    fields = _randn(1, 5, 3)

    gated = gate(fields).detach().numpy()

    means = fields.numpy().mean(1)
    middle = np.maximum(_numpy(gate, "squeeze.weight") @ means, 0)
    weights = _sigmoid(_numpy(gate, "excite.weight") @ middle)
    assert len(middle) == 2
    np.testing.assert_allclose(gated, weights[:, None] * fields.numpy(), **TOLERANCE)


def test_the_text_cnn_keeps_each_filters_strongest_answer() -> None:
    cnn = _loud(TextCnn(3, num_filters=2))
    words = _randn(1, 2, 5, 3)
    lengths = [5, 1]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]

    found = cnn(words, mask).detach().numpy()

    for b, length in enumerate(lengths):
        text = np.concatenate([words[b, :length].numpy(), np.zeros((4, 3))])
        expected = []
        for place, size in enumerate((2, 3, 4)):
            filters = _numpy(cnn, f"filters.{place}.weight")
            bias = _numpy(cnn, f"filters.{place}.bias")
            for weights, b_f in zip(filters, bias, strict=True):
                answers = [(weights.T * text[i : i + size]).sum() + b_f for i in range(length)]
                expected.append(max(0.0, *answers))
        np.testing.assert_allclose(found[b], expected, **TOLERANCE)


def test_a_text_without_words_is_zeros() -> None:
    cnn = _loud(TextCnn(3, num_filters=2))

    alone = cnn(torch.zeros(1, 0, 3), torch.zeros(1, 0, dtype=torch.bool))
    padded = cnn(_randn(1, 1, 4, 3), torch.zeros(1, 4, dtype=torch.bool))

    assert torch.equal(alone, torch.zeros(1, 6))
    assert torch.equal(padded, torch.zeros(1, 6))


def test_a_pooled_sequence_is_its_mean_and_an_empty_one_zeros() -> None:
    rows = _randn(1, 2, 5, 3)

    pooled = mean_pool(rows, SEQUENCES)

    torch.testing.assert_close(pooled[0, 0], (rows[0, 0] + rows[0, 2]) / 2)
    torch.testing.assert_close(pooled[0, 1], rows[0, 1])
    assert torch.equal(pooled[1, 1], torch.zeros(3))


def test_each_part_of_the_history_reads_the_other_one_alone() -> None:
    attention = _loud(PartsAttention(4, num_heads=2))
    rows = _randn(1, 2, 5, 4)

    read = attention(rows, SEQUENCES).detach().numpy()

    for b, p in np.ndindex(2, 2):
        own, other = ([t for t in range(5) if SEQUENCES[b, part, t]] for part in (p, 1 - p))
        projected = [_affine(attention, "project_in", row.numpy()) for row in rows[b]]
        total = np.zeros(4)
        for i in own if other else []:
            joined = []
            for head in (slice(0, 2), slice(2, 4)):
                q, keys = projected[i][:4][head], [projected[j][4:8][head] for j in other]
                exps = np.exp([q @ k / np.sqrt(2) for k in keys])
                values = np.stack([projected[j][8:][head] for j in other])
                joined.append(exps / exps.sum() @ values)
            total += _affine(attention, "project_out", np.concatenate(joined))
        np.testing.assert_allclose(read[b, p], total / max(len(own), 1), **TOLERANCE)


def test_a_tower_goes_on_from_the_layers_and_the_logit_of_the_easier_task() -> None:
    flow = _loud(ResFlow([4, 3, 2], num_tasks=3))
    inputs = [_randn(task, 4) for task in range(3)]

    logits = flow(inputs).detach().numpy()

    def layer(number: int, x: np.ndarray) -> np.ndarray:
        bent = _prelu(
            _affine(flow, f"layers.{number}.0", x), _numpy(flow, f"layers.{number}.1.weight")
        )
        normed = (bent - bent.mean()) / np.sqrt(bent.var() + 1e-5)
        norm = f"layers.{number}.2"
        return normed * _numpy(flow, f"{norm}.weight") + _numpy(flow, f"{norm}.bias")

    h1, h2, logit = np.zeros(3), np.zeros(2), 0.0
    for task in range(3):
        own_1 = layer(2 * task, inputs[task].numpy())
        own_2 = layer(2 * task + 1, own_1 + h1)
        logit = _affine(flow, f"logits.{task}", own_2 + h2)[0] + logit
        h1, h2 = own_1, own_2
        np.testing.assert_allclose(logits[task], logit, **TOLERANCE)
