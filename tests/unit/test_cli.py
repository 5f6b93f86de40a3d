import shlex
import subprocess
import sys

import pytest

from onepiece.cli import STAGES, build_parser, main


def test_a_misuse_exits_with_2_and_one_line(capsys, tmp_path):
    code = main(["events", "stats", "--log", str(tmp_path / "none")])

    told = capsys.readouterr()
    assert code == 2
    assert told.err.startswith("onepiece: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_an_unknown_verb_exits_with_2():
    with pytest.raises(SystemExit, match="2"):
        main(["events", "explode"])


def all_parsers(parser, words=()):
    yield words, parser
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for name, child in action.choices.items():
                yield from all_parsers(child, (*words, name))


def test_every_verb_explains_itself_with_a_line_that_parses():
    parser = build_parser()
    leaves = [
        (words, one) for words, one in all_parsers(parser) if one.get_default("run") is not None
    ]

    assert {words[0] for words, _ in leaves} == {*STAGES, "demo", "bench"}
    for words, leaf in leaves:
        assert leaf.description, words
        assert leaf.epilog, words
        example = leaf.epilog.partition("example: ")[2].split(" > ")[0]
        example = shlex.split(example)
        assert example[: len(words) + 1] == ["onepiece", *words], leaf.epilog
        parser.parse_args(example[1:])


def test_the_command_line_starts_without_heavy_imports():
    code = (
        "import sys; from onepiece.cli import build_parser; build_parser(); "
        "print(sorted({'torch', 'ray', 'feast', 'kafka', 'faiss', 'pandas'} & set(sys.modules)))"
    )

    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert told == "[]\n"


def test_output_to_a_reader_that_is_gone_is_no_error(repository):
    told = subprocess.run(
        f"{sys.executable} -m onepiece.cli experiment plan | true",
        shell=True,
        capture_output=True,
        text=True,
        cwd=repository,
        check=True,
    )

    assert told.stderr == ""
