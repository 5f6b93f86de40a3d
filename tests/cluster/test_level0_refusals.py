"""Level 0: values that would not work are refused, each with the sentence that says what to set.

A file of wrong values is put on top of the profile `demo`, or of nothing if it says so.
"""

import importlib.util
import re
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "rendering", Path(__file__).with_name("rendering.py")
)
rendering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rendering)

WRONG = sorted(Path(__file__).with_name("wrong_values").glob("*.yaml"))
DEMO = rendering.CHART / "profiles" / "demo.yaml"


def test_there_are_thirty_wrong_files_at_least():
    assert len(WRONG) >= 30


@pytest.mark.parametrize("values", WRONG, ids=lambda path: path.stem)
def test_wrong_values_are_refused_with_the_right_sentence(values: Path):
    comments = dict(re.findall(r"^# (expect|without|on): (.*)$", values.read_text(), re.MULTILINE))

    below = () if comments.get("on") == "nothing" else (DEMO,)
    done = rendering.template(*below, values, without=comments.get("without", ""))

    assert done.returncode != 0
    assert comments["expect"] in done.stderr


def test_the_demo_itself_is_not_refused():
    assert rendering.template(DEMO).returncode == 0
