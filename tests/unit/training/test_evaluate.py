import numpy as np
import pytest

from onepiece.training.evaluate import evaluate, scored_pages
from onepiece.training.loop import new_model, train
from onepiece.training.packed import Examples
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.request_values import measure
from onepiece.training.spine import Stage


@pytest.fixture(scope="module")
def trained(examples: Examples, eager: TrainingRecipe):
    return train(examples, eager).model


def test_a_trained_model_beats_an_untrained_one(
    trained, examples: Examples, recipe: TrainingRecipe
) -> None:
    untrained = evaluate(new_model(examples, recipe).eval(), examples)

    metrics = evaluate(trained, examples)

    for name in (
        "auc_order",
        "mrr_order_seen",
        "mrr_order_shelf",
        "ndcg_order_shelf",
        "recall_order_10",
    ):
        assert metrics[name] > untrained[name], name
    assert metrics["auc_order"] > 0.9
    assert metrics["ece_order"] < untrained["ece_order"]


def test_metrics_do_not_depend_on_the_batch_size(trained, examples: Examples) -> None:
    one, many = evaluate(trained, examples, batch_size=1), evaluate(trained, examples)

    assert one == pytest.approx(many, abs=1e-9)


def test_a_constant_model_gets_half_an_area_and_the_worst_rank(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    model = new_model(examples, recipe).eval()
    for parameter in model.parameters():
        parameter.data.zero_()

    metrics = evaluate(model, examples)

    assert metrics["auc_order"] == 0.5
    # Zero logits say one half of each candidate, seen or not.
    stages_BN = examples.batch(examples.rows(is_validation=True)).stages
    assert metrics["ece_order"] == pytest.approx(1 / 2 - (stages_BN == Stage.ORDERED).mean())
    assert metrics["ndcg_order_shelf"] == pytest.approx(1 / np.log2(13))
    # 5 items are seen on a page and 12 are on the shelf.
    assert metrics["mrr_order_seen"] == pytest.approx(1 / 5)
    assert metrics["mrr_order_shelf"] == pytest.approx(1 / 12)


def test_without_validation_pages_there_is_nothing_to_measure(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    flags = np.zeros_like(examples.columns["is_validation"])
    none = Examples(
        vocabulary=examples.vocabulary,
        context=examples.context,
        digest=examples.digest,
        columns=examples.columns | {"is_validation": flags},
    )

    assert evaluate(new_model(none, recipe).eval(), none) == {"num_validation_pages": 0.0}


@pytest.mark.parametrize(("head", "prefix"), [("ranking_tasks", "auc"), ("retrieval_tasks", "rec")])
def test_a_model_with_one_head_is_measured_on_that_head(
    examples: Examples, recipe: TrainingRecipe, head: str, prefix: str
) -> None:
    one_head = recipe.model.model_copy(update={head: ()})
    model = new_model(examples, recipe.model_copy(update={"model": one_head})).eval()

    names = evaluate(model, examples)

    assert not any(name.startswith(prefix) for name in names)
    assert len(names) > 1


def test_a_model_that_only_retrieves_is_judged_by_the_first_order_it_retrieves(
    examples: Examples, recipe: TrainingRecipe
) -> None:
    one_head = recipe.model.model_copy(update={"ranking_tasks": ()})
    model = new_model(examples, recipe.model_copy(update={"model": one_head})).eval()

    measured = measure(model, examples)

    expected = []
    for page in scored_pages(model, examples):
        is_ordered_N = page.stages_N == Stage.ORDERED
        if is_ordered_N.any():
            best = page.similarities_N[is_ordered_N].max()
            expected.append(1.0 / (page.similarities_N >= best).sum())
    assert measured.headline == "mrr_first"
    assert measured.values_R.tolist() == pytest.approx(expected)
    assert measured.metrics["mrr_first"] == pytest.approx(np.mean(expected))


def test_pages_keep_the_order_of_the_examples_whatever_their_lengths(
    trained, examples: Examples
) -> None:
    rows = examples.rows(is_validation=True)
    sizes = examples.sizes(rows)
    assert (np.diff(sizes) < 0).any()

    pages = scored_pages(trained, examples, batch_size=7)

    batch = examples.batch(rows)
    assert [page.user_code for page in pages] == batch.user_codes.tolist()
    for page, stages_N in zip(pages, batch.stages, strict=True):
        assert page.stages_N.tolist() == stages_N[: len(page.stages_N)].tolist()
