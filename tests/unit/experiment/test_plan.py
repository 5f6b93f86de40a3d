import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onepiece.errors import InvalidRecipe, NotFound
from onepiece.experiment.plan import ExperimentPlan, demo_plan, dump_plan
from onepiece.parsing import read_recipe


def edited(tmp_path, edit):
    values = yaml.safe_load(dump_plan(demo_plan(0)))
    edit(values)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_written_plan_is_read_back_equal(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(dump_plan(demo_plan(3)))

    plan = read_recipe(path, ExperimentPlan)

    assert plan == demo_plan(3)


def test_the_demo_crosses_three_arms_in_two_layers():
    plan = demo_plan(0)

    assert [layer.name for layer in plan.layers] == ["retrieval", "prerank"]
    assert [layer.sets for layer in plan.layers] == ["retriever", "ranker"]
    assert plan.layers[0].arm_names == ("popular", "repeat", "onepiece")
    assert [arm.weight_bp for arm in plan.layers[1].arms] == [3_334, 3_333, 3_333]
    assert plan.controls == {"retrieval": "popular", "prerank": "popular"}
    assert plan.num_cells == 9
    assert plan.pure_arms == ("popular", "repeat", "onepiece")


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_no_salt_is_shared_between_layers_or_seeds(first, second):
    plans = [demo_plan(first), demo_plan(second)] if first != second else [demo_plan(first)]

    salts = [salt for p in plans for salt in (*(layer.salt for layer in p.layers), p.traffic_salt)]

    assert len(set(salts)) == len(salts)


def heavier(values):
    values["layers"][0]["arms"][0]["weight_bp"] = 3_335


def fractional(values):
    values["layers"][0]["arms"][0]["weight_bp"] = 3_334.0


def uncontrolled(values):
    values["layers"][0]["control"] = "nobody"


def doubled_arm(values):
    values["layers"][0]["arms"][1]["name"] = "popular"


def shared_salt(values):
    values["layers"][1]["salt"] = values["layers"][0]["salt"]


def traffic_salt_shared(values):
    values["traffic_salt"] = values["layers"][0]["salt"]


def same_stage(values):
    values["layers"][1]["sets"] = "retriever"


def unknown_key(values):
    values["layers"][0]["colour"] = "red"


def too_much_traffic(values):
    values["traffic_bp"] = 10_001


def reserved_name(values):
    values["layers"][0]["name"] = "pure"


def one_arm_with_buckets(values):
    values["layers"][0]["arms"][0]["buckets"] = [[0, 3_334]]


def overlapping_buckets(values):
    for arm, pair in zip(
        values["layers"][0]["arms"], ([0, 3_334], [3_333, 6_666], [6_667, 10_000]), strict=True
    ):
        arm["buckets"] = [pair]


def buckets_unlike_weights(values):
    for arm, pair in zip(
        values["layers"][0]["arms"], ([0, 3_333], [3_333, 6_667], [6_667, 10_000]), strict=True
    ):
        arm["buckets"] = [pair]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (heavier, "sum to 10001; they must sum to exactly 10000: change 'popular' by -1"),
        (fractional, "layers.0.arms.0.weight_bp"),
        (uncontrolled, "control of layer 'retrieval' is 'nobody'"),
        (doubled_arm, "names an arm twice"),
        (shared_salt, "salt must differ between layers"),
        (traffic_salt_shared, "salt must differ between layers"),
        (same_stage, "sets must differ between layers"),
        (unknown_key, "unknown key layers.0.colour"),
        (too_much_traffic, "traffic_bp"),
        (reserved_name, "no layer may be named 'pure'"),
        (one_arm_with_buckets, "give them for every arm or for none"),
        (overlapping_buckets, "without gap or overlap"),
        (buckets_unlike_weights, "has 3333 buckets and weight_bp 3334"),
    ],
)
def test_a_wrong_plan_is_refused_and_the_message_says_where(tmp_path, edit, words):
    path = edited(tmp_path, edit)

    with pytest.raises(InvalidRecipe) as caught:
        read_recipe(path, ExperimentPlan)

    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["layers: [", "- 1\n- 2\n", "", "name: demo\n"])
def test_text_that_is_no_plan_is_refused(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)

    with pytest.raises(InvalidRecipe, match=r"plan\.yaml"):
        read_recipe(path, ExperimentPlan)


def test_a_plan_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InvalidRecipe, match="not UTF-8"):
        read_recipe(path, ExperimentPlan)


def test_a_plan_that_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no recipe at"):
        read_recipe(tmp_path / "none.yaml", ExperimentPlan)


def test_an_unknown_layer_or_arm_is_not_found_and_the_known_ones_are_named():
    plan = demo_plan(0)

    with pytest.raises(NotFound, match="it has retrieval, prerank"):
        plan.layer("colour")
    with pytest.raises(NotFound, match="it has popular, repeat, onepiece"):
        plan.layer("prerank").arm("red")
