import subprocess
import sys
from pathlib import Path

import pytest

from onepiece.errors import InvalidInput, OutputExists
from onepiece.output import new_folder, whole_file

# A process whose files may have 1,000 bytes: the system refuses more, as a full disk does.
FULL_DISK = """
import pathlib, resource, signal, sys
from onepiece.errors import StorageFull
from onepiece.output import {what}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with {what}(pathlib.Path(sys.argv[1])) as partial:
        {target}.write_bytes(bytes(5000))
except StorageFull as error:
    print(error)
"""


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as partial:
        (partial / "a").write_text("1")
        is_there_before = (tmp_path / "deep" / "out").exists()

    assert not is_there_before
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_folder_that_holds_something_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()

    with pytest.raises(OutputExists, match="never overwritten"), new_folder(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(KeyError), whole_file(path) as partial:
        raise KeyError(partial.write_text("new"))

    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with whole_file(path) as partial:
        partial.write_text("new")

    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("what", "target"), [("new_folder", "(partial / 'a')"), ("whole_file", "partial")]
)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, what: str, target: str) -> None:
    code = FULL_DISK.format(what=what, target=target)

    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "no room to write" in told
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(InvalidInput, match="cannot be written"),
        new_folder(tmp_path / "file" / "x"),
    ):
        pass
