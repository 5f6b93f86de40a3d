"""Writing results: whole or not at all, and never over another result."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onepiece.errors import InvalidInput, OutputExists, StorageFull

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` and renames it to `folder` when all went well.

    An empty `folder` may be there already; parents are made.

    Raises:
        OutputExists: `folder` is there and holds something.
        InvalidInput: Nothing can be written beside it.
        StorageFull: No room; the temporary folder is gone and nothing else was touched.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExists(f"{folder} exists; results are never overwritten, name a new folder")
    temporary = _beside(folder)
    try:
        with _room_for(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, makes it durable and renames it to `path`.

    A file of that name is replaced; a reader sees the old one or the new one. Parents are made.

    Raises:
        InvalidInput: Nothing can be written beside it.
        StorageFull: No room; nothing is left behind and the old file is as it was.
    """
    temporary = _beside(path)
    try:
        with _room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: Path, payload: bytes) -> None:
    """Writes a whole file and waits until it is on disk."""
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Says in words why the system refused to write."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull(
                f"no room to write {path}: {error.strerror}; nothing half-written is left, free "
                "some space and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR):
            raise InvalidInput(
                f"{path} cannot be written ({error.strerror}); give a place that you may write to"
            ) from error
        raise
