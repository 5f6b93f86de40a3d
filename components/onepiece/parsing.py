"""Reads what comes from outside into a model, or says what is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from onepiece.errors import InvalidInput, InvalidRecipe, NotFound

_MAX_SHOWN_ERRORS = 5
_MAX_SHOWN_CHARACTERS = 80
_MAX_SHOWN_MESSAGE = 400
_CONTROL_CHARACTERS = r"\x00-\x1f"
_NO_CONTROL = "an id holds no control characters, such as a newline"

_ModelT = TypeVar("_ModelT", bound=BaseModel)


def read_recipe(path: Path, model: type[_ModelT]) -> _ModelT:
    """Reads a YAML file that lists what differs from the model's defaults.

    Raises:
        NotFound: There is no such file.
        InvalidRecipe: Not YAML, an unknown key, or a value out of bounds; each one is named.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"no recipe at {path}; give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise InvalidRecipe(f"{path} is not UTF-8 text; give a YAML file") from error
    except yaml.YAMLError as error:
        raise InvalidRecipe(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return model.model_validate({} if document is None else document)
    except ValidationError as error:
        raise InvalidRecipe(f"{path}: {explain(error, whole='the recipe')}") from error


def read_settings(environment: Mapping[str, str], model: type[_ModelT], *, prefix: str) -> _ModelT:
    """Reads settings from the environment; called once, where a process starts.

    A secret may be given as the path of a file that holds it: PREFIX + NAME + "_FILE".

    Args:
        environment: Such as `os.environ`.
        model: What the settings are; field `name` is PREFIX + NAME in the environment.
        prefix: Of the variables that are meant for the model.

    Raises:
        InvalidInput: An unknown variable of the prefix, or a value out of bounds.
        NotFound: A file of a secret does not exist.
    """
    given = {
        name.removeprefix(prefix).lower(): value
        for name, value in environment.items()
        if name.startswith(prefix)
    }
    for name in [name for name in given if name.endswith("_file")]:
        secret = name.removesuffix("_file")
        if name not in model.model_fields and secret in model.model_fields:
            given[secret] = _read_secret(Path(given.pop(name)), variable=prefix + name.upper())
    try:
        return model.model_validate(given)
    except ValidationError as error:
        parts = [
            _explain_setting(detail, model, prefix) for detail in error.errors(include_url=False)
        ]
        allowed = ", ".join(prefix + name.upper() for name in model.model_fields)
        raise InvalidInput(
            f"invalid settings: {'; '.join(parts)}; the variables are {allowed}"
        ) from error


def _explain_setting(detail: Any, model: type[BaseModel], prefix: str) -> str:
    """Names the variable and what was given, unless that may be a secret."""
    if not detail["loc"]:
        return str(detail["msg"])
    name = str(detail["loc"][0])
    field = model.model_fields.get(name)
    # A name that is not known may be a secret's, misspelt.
    is_secret = field is None or "Secret" in str(field.annotation)
    given = "" if is_secret else f" (given {detail['input']!r})"
    return f"{prefix}{name.upper()}: {detail['msg']}{given}"


def _read_secret(path: Path, *, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise NotFound(
            f"{variable} is {path}, which cannot be read; give a secret's file"
        ) from error


def explain(error: ValidationError, *, whole: str) -> str:
    """Names each field, what was given and what is allowed, in one line of ASCII.

    Args:
        error: What pydantic found.
        whole: Name of what was validated, for faults of no single field.
    """
    details: list[Any] = error.errors(include_url=False)
    parts = [_explain_one(detail, whole) for detail in details[:_MAX_SHOWN_ERRORS]]
    if len(details) > _MAX_SHOWN_ERRORS:
        parts.append(f"and {len(details) - _MAX_SHOWN_ERRORS} more")
    if any(str(detail["loc"][-1]).endswith("_ms") for detail in details if detail["loc"]):
        parts.append("instants are Unix milliseconds, not seconds")
    return "; ".join(parts)


def _explain_one(detail: Any, whole: str) -> str:
    where = ascii(".".join(str(step) for step in detail["loc"]))[1:-1][:_MAX_SHOWN_CHARACTERS]
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {where}; take it out or correct its spelling"
        case "missing":
            return f"{where}: {detail['msg']}"
        case "string_pattern_mismatch" if _CONTROL_CHARACTERS in detail["ctx"]["pattern"]:
            said = _NO_CONTROL
        case _:
            said = _shortened(detail["msg"]).encode("ascii", "backslashreplace").decode()
    if detail["type"] == "value_error":  # a validator of ours: it says what was given itself
        return f"{where or whole}: {said}"
    return f"{where or whole}: {said} (given {_shown(detail.get('input'))})"


def _shortened(message: str) -> str:
    """Takes out the middle of a message that quotes what was given, of any length."""
    if len(message) <= _MAX_SHOWN_MESSAGE:
        return message
    return f"{message[: _MAX_SHOWN_MESSAGE // 2]}...{message[-_MAX_SHOWN_MESSAGE // 2 :]}"


def _shown(value: object) -> str:
    """Shows a value's start, so that 10 kB of it are neither logged nor sent back."""
    text = ascii(value[:_MAX_SHOWN_CHARACTERS] if isinstance(value, str) else value)
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return text[:_MAX_SHOWN_CHARACTERS] + "..."
