from pathlib import Path

import pytest

from onepiece.errors import InvalidInput
from onepiece.training.storage import check_storage, read_storage


@pytest.mark.parametrize("as_text", [str, Path.as_uri], ids=["folder", "uri"])
def test_a_folder_is_made_and_nothing_is_left_in_it(as_text, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "checkpoints"

    check_storage(as_text(folder))

    assert list(folder.iterdir()) == []


def test_a_relative_folder_becomes_absolute_and_a_uri_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_storage("checkpoints") == str(tmp_path / "checkpoints")
    assert read_storage("s3://bucket/checkpoints") == "s3://bucket/checkpoints"


@pytest.mark.parametrize(
    "storage", ["ftp://host/folder", "s4://bucket/folder", "://", "s3://bucket/folder?colour=red"]
)
def test_what_nothing_opens_is_refused_with_what_can_be_given(storage: str) -> None:
    with pytest.raises(InvalidInput, match=r"--storage is .*s3://BUCKET/PATH"):
        check_storage(storage)


def test_a_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here is no folder")

    with pytest.raises(InvalidInput, match="cannot be written"):
        check_storage(str(tmp_path / "file" / "checkpoints"))


def test_a_secret_in_a_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_storage("s3://name:very-secret@bucket/checkpoints")

    assert "very-secret" not in str(refused.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(refused.value)
