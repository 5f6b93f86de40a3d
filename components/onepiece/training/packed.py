"""Examples on disk: ragged columns as .npy files, read by memory map, never unpickled."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onepiece.bundle import ITEM_TO_ITEM, RequestKind, dump_item_to_item, load_item_to_item
from onepiece.context.batching import ContextBatch
from onepiece.context.builder import Context
from onepiece.context.recipe import ContextRecipe
from onepiece.context.vocabulary import Vocabulary
from onepiece.errors import InvalidDataset, InvalidInput, InvalidRecipe, NotFound
from onepiece.features.item_to_item import ItemToItem, ItemToItemRecipe
from onepiece.features.schema import feature_schema_digest
from onepiece.output import new_folder, write_durably

_MANIFEST, _VOCABULARY = "examples.json", "vocabulary.json"
_TOKEN_COLUMNS = {
    "item_rows": np.int32,
    "kinds": np.int8,
    "positions": np.int16,
    "actions": np.int8,
    "token_features": np.float32,
}
_WORD_COLUMNS = {"word_rows": np.int32}
_CANDIDATE_COLUMNS = {
    "candidate_rows": np.int32,
    "candidate_features": np.float32,
    "stages": np.int8,
}
_SEEN_COLUMNS = {"seen_rows": np.int32}
_REQUEST_COLUMNS = {
    "profile_codes": np.int16,
    "query_row": np.int32,
    "situation": np.float32,
    "seeds": np.int64,
    "user_codes": np.int32,
    "as_of_ms": np.int64,
    "num_missed": np.int32,
    "is_validation": np.bool_,
}
_STARTS = ("token_starts", "word_starts", "candidate_starts", "seen_starts")
_COLUMNS = (
    *_TOKEN_COLUMNS,
    *_WORD_COLUMNS,
    *_CANDIDATE_COLUMNS,
    *_SEEN_COLUMNS,
    *_REQUEST_COLUMNS,
    *_STARTS,
)


Ranks = Literal["shelf", "catalogue"]
"""What is ranked: the candidates of the example, or every item of the vocabulary."""
_RANKS: dict[str, Ranks] = {name: name for name in get_args(Ranks)}


@dataclass(frozen=True, slots=True)
class Example:
    """One request to learn from, or to be measured on."""

    context: Context
    """Tokens and candidates."""
    stages: NDArray[np.int8]
    """(C,) `Stage` of each candidate."""
    seed: int
    """Splits the candidates into groups; a function of the request."""
    user_code: int
    """Which user, for measures by user."""
    as_of_ms: int
    """Instant of the request."""
    is_validation: bool
    """Whether it lies in the last days, kept out of training."""
    seen_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(S,) rows of all items that the user met before, which a ranking of the whole catalogue may
    leave out; empty where the catalogue is not ranked."""
    num_missed: int = 0
    """Items that were wanted and are no candidate; a measure counts each as not found."""


@dataclass(frozen=True, slots=True)
class ExampleBatch:
    """Examples padded into one batch; B = requests, C = candidates."""

    context: ContextBatch
    stages: NDArray[np.int64]
    """(B, C) `Stage`; 0 for padding as well, which has candidate row 0."""
    seeds: NDArray[np.int64]
    """(B,) seeds of the groups."""
    user_codes: NDArray[np.int64]
    """(B,)."""
    seen_rows: NDArray[np.int64]
    """(B, S) rows of items met before; 0 is padding."""
    num_missed: NDArray[np.int64]
    """(B,) items that were wanted and are no candidate."""


@dataclass(frozen=True)
class Examples:
    """A folder of examples, opened; columns are read from disk as they are used."""

    vocabulary: Vocabulary
    context: ContextRecipe
    """With which the contexts were built."""
    digest: str
    """SHA-256 over all columns and the vocabulary, in hexadecimal."""
    columns: dict[str, NDArray[Any]]
    ranks: Ranks = "shelf"
    """What a model is measured on: the example's own candidates, or the whole catalogue."""
    requests: RequestKind | None = None
    """What the requests were; None of examples from before this was noted."""
    item_to_item: ItemToItem | None = None
    """Of everybody's training part, which requests after the training read; None: they read none.
    Not in `digest`: the anchors in the columns come from it."""

    def __len__(self) -> int:
        return len(self.columns["query_row"])

    def rows(self, *, is_validation: bool) -> NDArray[np.int64]:
        """Lists the examples of training, or of validation, in order of time."""
        return np.flatnonzero(self.columns["is_validation"] == is_validation)

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts tokens and candidates of each example: (len(rows),)."""
        starts = (self.columns["token_starts"], self.columns["candidate_starts"])
        sizes: NDArray[np.int64] = sum(
            (np.asarray(s[rows + 1] - s[rows]) for s in starts), np.zeros(len(rows), np.int64)
        )
        return sizes

    def batch(self, rows: NDArray[np.int64]) -> ExampleBatch:
        """Pads some examples into one batch, in the order given."""
        parts = {
            **self._padded(_TOKEN_COLUMNS, "token_starts", rows),
            **self._padded(_WORD_COLUMNS, "word_starts", rows),
            **self._padded(_CANDIDATE_COLUMNS, "candidate_starts", rows),
        }
        stages = parts.pop("stages")
        seen_rows = self._padded(_SEEN_COLUMNS, "seen_starts", rows)["seen_rows"]
        for name in ("profile_codes", "query_row", "situation"):
            parts[name] = _widen(self.columns[name][rows])
        return ExampleBatch(
            context=ContextBatch(**parts),
            stages=stages,
            seeds=_widen(self.columns["seeds"][rows]),
            user_codes=_widen(self.columns["user_codes"][rows]),
            seen_rows=seen_rows,
            num_missed=_widen(self.columns["num_missed"][rows]),
        )

    def _padded(
        self, names: Iterable[str], starts_name: str, rows: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Gathers ragged columns into rectangles, zeros behind."""
        starts = self.columns[starts_name]
        first, lengths = starts[rows], starts[rows + 1] - starts[rows]
        offsets = np.arange(int(lengths.max(initial=0)))
        is_real = offsets[None, :] < lengths[:, None]
        places = (first[:, None] + offsets[None, :])[is_real]
        padded: dict[str, NDArray[Any]] = {}
        for name in names:
            values = _widen(self.columns[name][places])
            rectangle = np.zeros((*is_real.shape, *values.shape[1:]), dtype=values.dtype)
            rectangle[is_real] = values
            padded[name] = rectangle
        return padded


def write_examples(
    folder: Path,
    examples: Iterator[Example],
    *,
    vocabulary: Vocabulary,
    context: ContextRecipe,
    ranks: Ranks = "shelf",
    requests: RequestKind = "shop",
    item_to_item: ItemToItem | None = None,
    is_test: bool = False,
) -> int:
    """Writes examples to a new folder, whole or not at all, and returns how many.

    Args:
        folder: Where, new.
        examples: To train on, to validate on, or both.
        vocabulary: Rows of the contexts; of a test, those of the training.
        context: Recipe of the contexts.
        ranks: What a model is measured on.
        requests: What the requests are.
        item_to_item: What a feed's requests read after the training, for the bundle; None: nothing.
        is_test: Whether nothing in it is to be trained on: every example is a validation example.

    Raises:
        OutputExists: The folder is there already.
        StorageFull: No room; nothing half-written is left.
        InvalidDataset: There are no examples to train on, or of a test none at all.
    """
    with new_folder(folder) as temporary:
        columns = _pack(examples)
        num_examples = len(columns["query_row"])
        if not num_examples or (columns["is_validation"].all() and not is_test):
            purpose = "test" if is_test else "train"
            raise InvalidDataset(
                f"the data have {num_examples} usable requests and none of them to {purpose} on; "
                "give more days, or keep fewer of them for validation or test"
            )
        vocabulary_json = vocabulary.to_json().encode()
        hasher = hashlib.sha256(vocabulary_json)
        for name in _COLUMNS:
            write_durably(temporary / f"{name}.npy", _npy(columns[name]))
            hasher.update(np.ascontiguousarray(columns[name]).tobytes())
        manifest = {
            "format": 2,
            "num_examples": num_examples,
            "ranks": ranks,
            "requests": requests,
            "item_to_item": item_to_item and item_to_item.recipe.model_dump(mode="json"),
            "context": context.model_dump(mode="json"),
            "feature_schema_digest": feature_schema_digest(),
            "digest": hasher.hexdigest(),
        }
        if item_to_item is not None:
            write_durably(temporary / ITEM_TO_ITEM, dump_item_to_item(item_to_item))
        write_durably(temporary / _VOCABULARY, vocabulary_json)
        write_durably(temporary / _MANIFEST, json.dumps(manifest, indent=1).encode())
        return num_examples


def open_examples(folder: Path, *, context: ContextRecipe) -> Examples:
    """Opens what `write_examples` wrote.

    Args:
        folder: Where.
        context: The context recipe of the training to come; it must be the one the examples
            were built with.

    Raises:
        NotFound: There are no examples at `folder`.
        InvalidDataset: The files are not whole, or of another feature schema.
        InvalidRecipe: The contexts were built with another recipe.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        raise NotFound(f"no examples at {folder}: {_MANIFEST} is missing; build them first")
    try:
        manifest = json.loads(path.read_bytes())
        columns = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _COLUMNS
        }
        vocabulary = Vocabulary.from_json((folder / _VOCABULARY).read_text())
        built_with = ContextRecipe.model_validate(manifest["context"])
        digest, schema = str(manifest["digest"]), str(manifest["feature_schema_digest"])
        ranks = _RANKS[manifest["ranks"]]
        table = _open_table(folder, manifest.get("item_to_item"), vocabulary)
    except (OSError, ValueError, KeyError, InvalidInput) as error:
        raise InvalidDataset(f"{folder} does not hold whole examples: {error}") from error
    if schema != feature_schema_digest():
        raise InvalidDataset(
            f"the examples at {folder} have feature schema {schema[:12]}, this code has "
            f"{feature_schema_digest()[:12]}; build them again"
        )
    if built_with != context:
        raise InvalidRecipe(
            f"the examples at {folder} were built with context {built_with!r}, the recipe says "
            f"{context!r}; build them again with this recipe"
        )
    return Examples(
        vocabulary=vocabulary,
        context=context,
        digest=digest,
        columns=columns,
        ranks=ranks,
        requests=manifest.get("requests"),
        item_to_item=table,
    )


def _open_table(folder: Path, recipe: object, vocabulary: Vocabulary) -> ItemToItem | None:
    """Reads the item-to-item table, if the examples have one."""
    if recipe is None:
        return None
    return load_item_to_item(
        (folder / ITEM_TO_ITEM).read_bytes(),
        recipe=ItemToItemRecipe.model_validate(recipe),
        num_items=len(vocabulary.item_ids),
    )


def _pack(examples: Iterator[Example]) -> dict[str, NDArray[Any]]:
    """Joins examples into columns."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}
    lengths: dict[str, list[int]] = {name: [0] for name in _STARTS}
    for example in examples:
        context = example.context
        for name in (*_TOKEN_COLUMNS, *_WORD_COLUMNS, "candidate_rows", "candidate_features"):
            parts[name].append(getattr(context, name).astype(_dtype(name)))
        parts["stages"].append(example.stages)
        parts["seen_rows"].append(example.seen_rows.astype(np.int32))
        parts["profile_codes"].append(context.profile_codes.astype(np.int16))
        parts["query_row"].append(np.array(context.query_row, dtype=np.int32))
        parts["situation"].append(context.situation)
        parts["seeds"].append(np.array(example.seed, dtype=np.int64))
        parts["user_codes"].append(np.array(example.user_code, dtype=np.int32))
        parts["as_of_ms"].append(np.array(example.as_of_ms, dtype=np.int64))
        parts["num_missed"].append(np.array(example.num_missed, dtype=np.int32))
        parts["is_validation"].append(np.array(example.is_validation))
        lengths["token_starts"].append(len(context.kinds))
        lengths["word_starts"].append(len(context.word_rows))
        lengths["candidate_starts"].append(len(example.stages))
        lengths["seen_starts"].append(len(example.seen_rows))
    columns: dict[str, NDArray[Any]] = {}
    for name in _REQUEST_COLUMNS:
        columns[name] = np.stack(parts[name]) if parts[name] else np.zeros(0, _dtype(name))
    for name in (*_TOKEN_COLUMNS, *_WORD_COLUMNS, *_CANDIDATE_COLUMNS, *_SEEN_COLUMNS):
        columns[name] = (
            np.concatenate(parts.pop(name)) if parts[name] else np.zeros(0, _dtype(name))
        )
    for name in _STARTS:
        columns[name] = np.cumsum(np.array(lengths[name], dtype=np.int64))
    return columns


def _npy(values: NDArray[Any]) -> bytes:
    """Formats a column as .npy; numpy's own writer loses the reason when the disk is full."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _dtype(name: str) -> type[np.generic]:
    columns = {
        **_TOKEN_COLUMNS,
        **_WORD_COLUMNS,
        **_CANDIDATE_COLUMNS,
        **_SEEN_COLUMNS,
        **_REQUEST_COLUMNS,
    }
    return columns[name]


def _widen(values: NDArray[Any]) -> NDArray[Any]:
    """Copies to the types that contexts have: float32, or int64."""
    is_real = np.issubdtype(values.dtype, np.floating)
    return np.array(values, dtype=np.float32 if is_real else np.int64)
