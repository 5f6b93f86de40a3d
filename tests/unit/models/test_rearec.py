from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onepiece.context.batching import collate
from onepiece.context.builder import TOKEN_FEATURES, Context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.models.hstu import Hstu, HstuRecipe
from onepiece.models.inputs import candidate_tensors, context_tensors
from onepiece.models.rearec import ReaRec, ReaRecRecipe
from onepiece.models.sasrec import SasRec, SasRecRecipe
from onepiece.models.sequence import Sequences

CONTEXT = ContextRecipe(max_recent_tokens=4, max_memory_tokens=6, max_anchor_tokens=3)
SIZES = {"width": 8, "num_heads": 2}
TOKEN_ARRAYS = ("item_rows", "kinds", "positions", "actions", "token_features")
Make = Callable[..., ReaRec]
MakeContext = Callable[..., Context]

both_backbones = pytest.mark.parametrize("backbone", ["sasrec", "hstu"])


@pytest.fixture
def make(vocabulary: Vocabulary) -> Make:
    def build(**recipe: object) -> ReaRec:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            chosen = ReaRecRecipe.model_validate(SIZES | {"num_steps": 3} | recipe)
            model = ReaRec(chosen, context=CONTEXT, vocabulary=vocabulary)
            for parameter in model.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return model.eval()

    return build


def _aged(context: Context) -> Context:
    """Gives the history plausible ages; the fixture's are random numbers."""
    features = context.token_features.copy()
    ages_days = np.linspace(40, 0.5, len(features))
    features[:, TOKEN_FEATURES.index("log_age_days")] = np.log1p(ages_days)
    return replace(context, token_features=features)


def _without_tokens(context: Context) -> Context:
    return replace(context, **{name: getattr(context, name)[:0] for name in TOKEN_ARRAYS})


def _steps(model: ReaRec, *contexts: Context) -> Tensor:
    with torch.inference_mode():
        return model.step_vectors(model.encode_context(context_tensors(collate(contexts))))


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_without_steps_it_is_sasrec_bit_for_bit(
    make: Make, make_context: MakeContext, vocabulary: Vocabulary, readout: str
) -> None:
    model = make(num_steps=0, readout=readout)
    backbone = SasRec(SasRecRecipe(**SIZES), context=CONTEXT, vocabulary=vocabulary).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    batch = context_tensors(collate([make_context(1), make_context(2, num_history=9)]))

    with torch.inference_mode():
        ours = model.user_vectors(model.encode_context(batch))
        theirs = backbone.user_vectors(backbone.encode_context(batch))

    assert torch.equal(ours, theirs)
    rows = torch.arange(2, 9)
    assert torch.equal(model.item_vectors(rows), backbone.item_vectors(rows))


def test_without_steps_it_is_hstu_before_the_cosine_bit_for_bit(
    make: Make, make_context: MakeContext, vocabulary: Vocabulary
) -> None:
    model = make(backbone="hstu", num_steps=0)
    backbone = Hstu(HstuRecipe(**SIZES), context=CONTEXT, vocabulary=vocabulary).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    batch = context_tensors(collate([_aged(make_context(1)), _aged(make_context(2))]))

    with torch.inference_mode():
        ours = model.user_vectors(model.encode_context(batch))[:, 0]
        theirs = backbone.encode_context(batch)

    unit = torch.nn.functional.normalize(ours, dim=-1) / backbone.recipe.temperature
    assert torch.equal(unit, theirs)


def _recomputed(model: ReaRec, context: Context) -> Tensor:
    """Reads the grown sequence from its start for each step, without any cache: (K + 1, D)."""
    backbone = model.backbone
    batch = context_tensors(collate([context]))
    sequences = backbone.tokens(batch)
    added: list[Tensor] = []
    outputs: list[Tensor] = []
    for step in range(model.recipe.num_steps + 1):
        outputs.append(_whole(backbone, sequences, added)[0, -1])
        if step < model.recipe.num_steps:
            row_D = model.norm(outputs[-1] + model.step_positions_KD[step])
            added.append(row_D[None, None])
    return torch.stack(outputs)


def _whole(backbone: SasRec | Hstu, sequences: Sequences, added: list[Tensor]) -> Tensor:
    """Runs every layer over the sequence and the rows behind it: (1, S + added, D)."""
    width, num_added = backbone.recipe.width, len(added)
    if isinstance(backbone, SasRec):
        x = sequences.rows_BSD * width**0.5 + backbone.positions(sequences.from_newest_BS)
        x = torch.cat([x, *added], dim=1)
        for block in backbone.blocks:
            x, _ = block(x)
        return backbone.norm(x)
    size = sequences.rows_BSD.shape[1]
    x = sequences.rows_BSD * width**0.5 + backbone.positions.weight[:size]
    x = torch.cat([x, *added], dim=1)
    buckets = _literal_buckets(sequences, num_added)
    for layer in backbone.layers:
        x, _ = layer(x, buckets)
    return x


def _literal_buckets(sequences: Sequences, num_added: int) -> Tensor:
    """Appended rows have the last token's time; they and the last token know the request's."""
    ages = sequences.age_days_BS[0].tolist()
    is_timed = sequences.is_history_BS[0].tolist()
    size = len(ages)
    ages, is_timed = ages + ages[-1:] * num_added, is_timed + is_timed[-1:] * num_added
    buckets = torch.full((1, len(ages), len(ages)), 129)
    for i in range(len(ages)):
        next_age = 0.0 if i >= size - 1 else ages[i + 1]
        for j in range(i + 1):
            if is_timed[j] and (is_timed[i] or i >= size - 1):
                seconds = max(1.0, abs(ages[j] - next_age) * 86_400)
                buckets[0, i, j] = min(int(np.log(seconds) / 0.301), 128)
    return buckets


@both_backbones
@pytest.mark.parametrize("num_history", [1, 6])
def test_steps_from_the_cache_are_those_of_the_grown_sequence(
    make: Make, make_context: MakeContext, backbone: str, num_history: int
) -> None:
    model = make(backbone=backbone)
    context = _aged(make_context(3, num_history=num_history))

    with torch.inference_mode():
        expected_PD = _recomputed(model, context)

    torch.testing.assert_close(_steps(model, context)[0], expected_PD, atol=1e-4, rtol=1e-4)


@both_backbones
def test_neither_padding_nor_neighbours_change_a_step(
    make: Make, make_context: MakeContext, backbone: str
) -> None:
    model = make(backbone=backbone)
    short, long = _aged(make_context(1, num_history=2)), _aged(make_context(2, num_history=9))
    empty = _without_tokens(short)

    together = _steps(model, empty, short, long)

    for place, context in enumerate((empty, short)):
        alone = _steps(model, context)[0]
        torch.testing.assert_close(together[place], alone, atol=1e-4, rtol=1e-4)


@both_backbones
def test_step_positions_count(make: Make, make_context: MakeContext, backbone: str) -> None:
    model, naive = make(backbone=backbone), make(backbone=backbone, has_step_positions=False)
    naive.load_state_dict({k: v for k, v in model.state_dict().items() if "step_pos" not in k})
    context = _aged(make_context(4))

    with_positions, without = _steps(model, context)[0], _steps(naive, context)[0]

    assert torch.equal(with_positions[0], without[0])
    assert not torch.allclose(with_positions[1], without[1], atol=1e-3)


def test_the_readout_is_the_mean_of_all_outputs_or_the_last(
    make: Make, make_context: MakeContext
) -> None:
    context = make_context(5)
    batch = context_tensors(collate([context]))
    mean, last = make(readout="mean"), make(readout="last")

    with torch.inference_mode():
        users = [m.user_vectors(m.encode_context(batch))[0, 0] for m in (mean, last)]

    steps_PD = _steps(mean, context)[0]
    torch.testing.assert_close(users[0], sum(steps_PD) / 4)
    torch.testing.assert_close(users[1], steps_PD[3])


def test_a_score_is_the_inner_product_with_the_item_table(
    make: Make, make_context: MakeContext
) -> None:
    model = make()
    batch = collate([make_context(6)])

    with torch.inference_mode():
        encoding = model.encode_context(context_tensors(batch))
        grouped = candidate_tensors(batch, group_size=model.recipe.group_size)
        scores_N = model.score_candidates(encoding, grouped)[0, :, 0]
        items_ND = model.backbone.tokens.items.weight[torch.from_numpy(batch.candidate_rows[0])]
        expected_N = items_ND @ model.user_vectors(encoding)[0, 0]

    torch.testing.assert_close(scores_N, expected_N)


@both_backbones
def test_noisy_steps_start_from_clean_inputs(
    make: Make, make_context: MakeContext, backbone: str
) -> None:
    model = make(backbone=backbone)
    batch = context_tensors(collate([_aged(make_context(seed)) for seed in (7, 8)]))
    noise_BKD = torch.zeros(2, 3, 8)
    noise_BKD[0, 0, 0] = 1.0

    with torch.inference_mode():
        encoding = model.encode_context(batch)
        clean_BKD = model.step_vectors(encoding)[:, 1:]
        noisy_BKD = model.noisy_step_vectors(encoding, noise_BKD)
        quiet_BKD = model.noisy_step_vectors(encoding, torch.zeros(2, 3, 8))

    torch.testing.assert_close(quiet_BKD, clean_BKD)
    torch.testing.assert_close(noisy_BKD[1], clean_BKD[1])
    assert not torch.allclose(noisy_BKD[0, 0], clean_BKD[0, 0], atol=1e-3)


@both_backbones
def test_a_later_step_depends_on_the_clean_output_but_on_the_noisy_cache(
    make: Make, make_context: MakeContext, backbone: str
) -> None:
    model = make(backbone=backbone)
    batch = context_tensors(collate([_aged(make_context(9))]))
    noise_BKD = torch.zeros(1, 3, 8)
    noise_BKD[0, 0, 0] = 1.0

    with torch.inference_mode():
        encoding = model.encode_context(batch)
        noisy_BKD = model.noisy_step_vectors(encoding, noise_BKD)
        first = model._feed(0, encoding.steps_BPD[:, 0]) + noise_BKD[:, 0]
        state = model._take(first, encoding.read)
        second = model._take(model._feed(1, encoding.steps_BPD[:, 1]), state)

    torch.testing.assert_close(noisy_BKD[:, 1], second.last_BD)


def test_gradients_reach_the_table_and_the_steps(make: Make, make_context: MakeContext) -> None:
    model = make().train()
    batch = context_tensors(collate([make_context(10)]))

    model.user_vectors(model.encode_context(batch)).pow(2).sum().backward()

    assert (model.step_positions_KD.grad.abs().sum(-1) > 0).all()
    assert model.backbone.tokens.items.weight.grad.abs().sum() > 0
