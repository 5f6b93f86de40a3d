"""The anchors' stream on disk: what it counted, and where in the log it goes on."""

import fcntl
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onepiece.errors import InvalidDataset, InvalidInput
from onepiece.events.anchor_state import dump_ledger, restore_ledger
from onepiece.events.anchors import AnchorLedger, AnchorRecipe
from onepiece.output import whole_file

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the file; another one is refused."""
_FILE = "anchors.npz"
_LOCK = "lock"


class AnchorCheckpoint:
    """A folder with one file, replaced whole: a ledger and the offsets that belong to it.

    One object holds the folder, so that two streams never save into the same one.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder, made if it is missing, until `close` or the end of the process.

        Raises:
            InvalidInput: Another stream holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / _FILE
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise InvalidInput(
                f"another anchors' stream keeps its state in {folder}; stop it, or give this one "
                "a folder of its own"
            ) from error

    def save(self, ledger: AnchorLedger, next_offsets: Sequence[int]) -> None:
        """Writes ledger and offsets durably, in place of those before.

        Raises:
            StorageFull: No room; those before are as they were.
        """
        with whole_file(self._path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                format=np.array([FORMAT]),
                next_offsets=np.array(next_offsets, np.int64),
                **dump_ledger(ledger),
            )

    def load(self, recipe: AnchorRecipe) -> tuple[AnchorLedger, list[int]] | None:
        """Reads ledger and offsets; None if nothing was saved yet.

        Raises:
            InvalidInput: They were counted by another recipe.
            InvalidDataset: The file cannot be read.
        """
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                if int(arrays["format"][0]) != FORMAT:
                    raise ValueError(f"its format is {int(arrays['format'][0])}, not {FORMAT}")
                ledger = restore_ledger(arrays, recipe)
                return ledger, arrays["next_offsets"].tolist()
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidDataset(
                f"{self._path} cannot be read: {error}; delete it, and anchors are counted from "
                "the whole log"
            ) from error

    def close(self) -> None:
        """Gives the folder back."""
        os.close(self._lock)
