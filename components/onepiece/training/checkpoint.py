"""Checkpoints: everything that a stopped training needs to go on as if it had not stopped.

Weights and the optimiser's state are safetensors, the place in the data is JSON. The order of
the data is a function of seed and epoch, and nothing is drawn while training, so the number of
the step is all the place there is.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from onepiece.errors import InvalidDataset, InvalidRecipe
from onepiece.output import new_folder, write_durably
from onepiece.training.days import DayValidation
from onepiece.training.stopping import Validation

_STATE, _PLACE = "state.safetensors", "place.json"
_NAME = re.compile(r"step-(\d{9})")
_KEPT = 2
"""Checkpoints kept: the newest, and the one before it in case the newest is damaged."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training stands."""

    step: int
    """Steps done."""
    run_digest: str
    """What is being trained: hash of recipe and examples."""
    losses: tuple[float, ...]
    """Loss of each step done."""
    validations: tuple[Validation, ...]
    """What early stopping has measured."""
    days: tuple[DayValidation, ...]
    """What each day after has said."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint held besides the weights and the optimiser's state."""

    place: Place
    best_weights: Mapping[str, Tensor]
    """Weights of the best epoch measured; empty if none was."""


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    place: Place,
    best_weights: Mapping[str, Tensor],
) -> Path:
    """Writes a checkpoint into `folder`, whole or not at all, and drops the oldest ones.

    Raises:
        StorageFull: No room; nothing half-written is left and earlier checkpoints are intact.
    """
    target = folder / f"step-{place.step:09d}"
    if target.exists():
        return target
    tensors = _tensors(model, optimiser)
    tensors |= {f"best/{name}": value.contiguous() for name, value in best_weights.items()}
    payload = dump_tensors(tensors)
    document = {
        "step": place.step,
        "run_digest": place.run_digest,
        "losses": list(place.losses),
        "validations": [asdict(validation) for validation in place.validations],
        "days": [asdict(day) for day in place.days],
        "state_sha256": hashlib.sha256(payload).hexdigest(),
    }
    with new_folder(target) as temporary:
        write_durably(temporary / _STATE, payload)
        write_durably(temporary / _PLACE, json.dumps(document).encode())
    for old in _checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return target


def newest_checkpoint(folder: Path) -> Path | None:
    """Finds the checkpoint with most steps; None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(
    folder: Path, *, model: nn.Module, optimiser: torch.optim.Optimizer, run_digest: str
) -> Restored:
    """Restores weights and optimiser from one checkpoint and says where the training stood.

    Raises:
        InvalidDataset: The checkpoint is damaged.
        InvalidRecipe: It is of another recipe or of other examples.
    """
    try:
        document = json.loads((folder / _PLACE).read_bytes())
        payload = (folder / _STATE).read_bytes()
        if hashlib.sha256(payload).hexdigest() != document["state_sha256"]:
            raise ValueError(f"{_STATE} differs from its recorded hash")
        place = Place(
            step=int(document["step"]),
            run_digest=document["run_digest"],
            losses=tuple(document["losses"]),
            validations=tuple(Validation(**one) for one in document["validations"]),
            days=tuple(DayValidation(**one) for one in document["days"]),
        )
        tensors = load_tensors(payload)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidDataset(
            f"the checkpoint {folder} is damaged: {error}; delete it to go on from the one before"
        ) from error
    if place.run_digest != run_digest:
        raise InvalidRecipe(
            f"the checkpoint {folder} is of run {place.run_digest[:12]}, this run is "
            f"{run_digest[:12]}: recipe or examples differ; give an empty checkpoint folder"
        )
    model.load_state_dict(_under("model/", tensors))
    for name, parameter in model.named_parameters():
        state = _under(f"optimiser/{name}/", tensors)
        if state:
            optimiser.state[parameter] = state
    return Restored(place, _under("best/", tensors))


def _tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{name}/{key}"] = value
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
