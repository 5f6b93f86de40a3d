"""The report: everything one experiment says, as data, and the folder it is written to.

The words, the page and the table for the terminal are made from this data and from nothing else
(`report_words.py`, `report_html.py`, `report_text.py`).
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from onepiece.errors import InvalidInput, NotFound
from onepiece.experiment.analysis import Analysis, analyse
from onepiece.experiment.outcomes import JoinCounts, LivePhase, Outcomes
from onepiece.experiment.plan import ExperimentPlan
from onepiece.experiment.truth import Truth
from onepiece.output import new_folder

ModelT = TypeVar("ModelT")

JSON_NAME = "report.json"
"""File of the data."""
HTML_NAME = "report.html"
"""File of the page."""


class Provenance(BaseModel):
    """Where the numbers come from, so that somebody else can make them again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = Field("", description="Command line that ran the experiment.")
    recipe: str = Field("", description="Name of the recipe of the run.")
    seed: int | None = Field(None, description="Seed of the run; None if nothing was drawn.")
    bundle_version: str = Field("", description="Version of the model bundle that answered.")
    dataset: str = Field("", description="Where demand comes from.")
    shopper: dict[str, str] = Field(
        default_factory=dict,
        description="Parameters of the simulated shoppers; empty if shoppers were real.",
    )


class ExperimentReport(BaseModel):
    """One finished experiment; the JSON file is this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(
        1, description="Version of this format; changed when a field changes its meaning."
    )
    plan: ExperimentPlan = Field(description="The plan that was running.")
    phase: LivePhase = Field(description="The time judged.")
    currency: str = Field(description="ISO 4217 code of amounts; empty if nobody ordered.")
    analysis: Analysis = Field(description="Every metric of every arm.")
    counts: JoinCounts = Field(description="What the join met.")
    truth: Truth | None = Field(None, description="Effects by replay; None outside a simulation.")
    provenance: Provenance = Field(description="Where the numbers come from.")


def build_report(
    plan: ExperimentPlan,
    outcomes: Outcomes,
    *,
    provenance: Provenance,
    truth: Truth | None = None,
) -> ExperimentReport:
    """Analyses the outcomes and puts all that a report needs together."""
    return ExperimentReport(
        plan=plan,
        phase=outcomes.phase,
        currency=outcomes.currency,
        analysis=analyse(outcomes, plan),
        counts=outcomes.counts,
        truth=truth,
        provenance=provenance,
    )


def read_json(path: Path, kind: type[ModelT]) -> ModelT:
    """Reads a report, a provenance or a truth back from its JSON file.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is not JSON, or not of this kind and version.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"no file at {path}; give the path of a {kind.__name__} as JSON") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "file"
        raise InvalidInput(
            f"{path} is not a {kind.__name__} as JSON: {where}: {first['msg']}"
        ) from error


def write_report(report: ExperimentReport, page: str, folder: Path) -> None:
    """Writes the report's JSON and its page into a new folder, whole or not at all.

    Args:
        report: The data.
        page: The same as HTML, from `report_html.render_page`.
        folder: Must not exist; its parents are made.

    Raises:
        OutputExists: `folder` is taken.
        StorageFull: The disk is full; nothing is left behind.
    """
    with new_folder(folder) as unfinished:
        (unfinished / JSON_NAME).write_text(report.model_dump_json(indent=2) + "\n")
        (unfinished / HTML_NAME).write_text(page, encoding="utf-8")
