"""A training that other processes run: what they must know, as JSON, and its name."""

from collections.abc import Callable
from pathlib import Path

import torch
from prometheus_client import start_http_server
from pydantic import BaseModel, ConfigDict, Field

from onepiece.bundle import load_bundle
from onepiece.errors import InvalidInput
from onepiece.parsing import read_recipe
from onepiece.training.fit import check_output, fit
from onepiece.training.loop import Progress, run_digest
from onepiece.training.machine import Machine
from onepiece.training.packed import open_examples
from onepiece.training.progress_file import append_progress
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.step import Share
from onepiece.training.storage import check_storage
from onepiece.training.throughput import publish

_LAST_PORT = 65_535


class Job(BaseModel):
    """What is trained on what, and where to; every worker can read the paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        min_length=1,
        max_length=64,
        description="Digest of what goes in: the same job finds its checkpoints again.",
    )
    recipe: TrainingRecipe = Field(description="How to train.")
    data: Path = Field(description="Folder of examples.")
    out: Path = Field(description="Folder of the bundle, new.")
    progress: Path = Field(description="File of progress, one line a step.")
    start_from: Path | None = Field(None, description="Bundle to train further; none: anew.")
    metrics_port: int = Field(0, ge=0, le=_LAST_PORT, description="Port of Prometheus; 0: none.")


def open_job(
    recipe: Path,
    *,
    data: Path,
    out: Path,
    storage: str,
    start_from: Path | None,
    metrics_port: int,
) -> Job:
    """Reads and checks what can be before a worker starts, and makes where checkpoints go.

    Raises:
        NotFound: There is no recipe, no example, or no bundle to start from.
        InvalidRecipe: The recipe is not valid, or is not the one of the examples.
        OutputExists: `out` is there already and holds something.
        InvalidInput: There is no such port, or checkpoints cannot be written.
    """
    check_output(out)
    if not 0 <= metrics_port <= _LAST_PORT:
        raise InvalidInput(
            f"--metrics-port is {metrics_port}; give a port up to {_LAST_PORT}, or 0 for none"
        )
    read = read_recipe(recipe, TrainingRecipe)
    examples = open_examples(data, context=read.context)
    parent = load_bundle(start_from) if start_from else None
    name = run_digest(examples, read, parent)[:16]
    check_storage(storage)
    out.parent.mkdir(parents=True, exist_ok=True)
    return Job(
        name=name,
        recipe=read,
        data=data,
        out=out,
        # Beside the bundle, since it is appended to, which object storage cannot.
        progress=out.with_name(f".{out.name}.jsonl"),
        start_from=start_from,
        metrics_port=metrics_port,
    )


def run_job(
    document: str,
    *,
    checkpoints: Path | None,
    resume_from: Path | None,
    share: Share,
    machine: Machine,
    on_progress: Callable[[Progress], None],
) -> None:
    """Does one worker's part of a job, on one core; rank 0 tells progress and speed.

    Args:
        document: JSON of a `Job`.
        checkpoints: See `fit`, as for the others.
        resume_from: One checkpoint to go on from.
        share: This worker's part.
        machine: Device and clock.
        on_progress: Called after each step, in every worker.
    """
    job = Job.model_validate_json(document)
    torch.set_num_threads(1)
    if share.rank == 0 and job.metrics_port:
        start_http_server(job.metrics_port)

    def tell(progress: Progress) -> None:
        if share.rank == 0:
            append_progress(job.progress, progress)
            publish(progress.throughput)
        on_progress(progress)

    fit(
        job.data,
        job.recipe,
        job.out,
        checkpoints=checkpoints,
        resume_from=resume_from,
        on_progress=tell,
        share=share,
        machine=machine,
        start_from=job.start_from,
    )
