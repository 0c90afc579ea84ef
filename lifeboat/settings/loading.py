"""Reading lifeboat.yaml: paths resolved, and every mistake told with its line and its key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from lifeboat.core.errors import SettingsError
from lifeboat.settings.base import VOLUMES_DIRECTORY
from lifeboat.settings.contradictions import Mistake, contradictions
from lifeboat.settings.environment import CONFIG_VARIABLE, default_config_path
from lifeboat.settings.model import Settings


def load_settings(path: Path | str | None = None, *, directory: Path | None = None) -> Settings:
    """Read lifeboat.yaml and the secrets that go with it.

    Relative paths are below `directory`, by default the one of the file: a copy of the settings can
    be read before it lies where it will lie.

    Raises SettingsError with every mistake, each as `file:line: key: what is wrong`.
    """
    file = Path(path) if path else default_config_path()
    file = file.expanduser().absolute()
    data = _read_yaml(file)
    try:
        below = directory or file.parent
        plain = _plain(data)
        context = {"directory": below, "volumes": below / _volumes_directory(plain)}
        settings = Settings.model_validate(plain, context=context)
    except ValidationError as error:
        raise _settings_error(file, data, list(_mistakes(error))) from error
    mistakes = list(contradictions(settings))
    if mistakes:
        raise _settings_error(file, data, mistakes)
    settings._file = directory / file.name if directory else file
    return settings


def _volumes_directory(data: Mapping) -> str:
    """Where volumes lie, which paths in all sections need to know."""
    stack = data.get("stack")
    told = stack.get("volumes_directory") if isinstance(stack, Mapping) else None
    return told if isinstance(told, str) else str(VOLUMES_DIRECTORY)


def _read_yaml(file: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(
            f"Reading the settings: there is no {file}.",
            hint=f"Name it with --config or {CONFIG_VARIABLE}, or change to its directory.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"Reading the settings: {file} can't be read ({error}).",
            hint="Look at its owner and mode; it is text in UTF-8.",
        ) from error
    try:
        data = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = " ".join(str(error.problem or error.context or error).split())
        what = what.partition(" with value ")[0]  # a duplicate's value may be anything
        raise SettingsError(
            f"{file}{line}: this is not valid YAML: {what}.", hint="Correct that line."
        ) from error
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise SettingsError(
            f"{file}: this is not valid YAML: {what}.", hint="Correct it."
        ) from error
    if not isinstance(data, Mapping):
        raise SettingsError(
            f"{file}:1: there are no settings in it.",
            hint="Restore it from the vault, or begin with `platform: NAME`.",
        )
    return data


def _plain(value: Any) -> Any:
    """The same without ruamel's types, which remember lines and comments."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)  # a date, a set: nothing here wants one


_WHY_REQUIRED = {
    "vault.s3": "it is required: without a copy off this host a lost server can't be recovered",
    "config": "it is required: without its configuration a lost server can't be rebuilt",
}


def _mistakes(error: ValidationError) -> Iterator[Mistake]:
    all_told = error.errors(include_url=False, include_input=False)
    for told in all_told:
        location, kind = tuple(told["loc"]), told["type"]
        if kind == "too_short" and any(
            len(other["loc"]) > len(location) and tuple(other["loc"][: len(location)]) == location
            for other in all_told
        ):
            continue  # short only because its members are wrong, which is told already
        if kind == "missing":
            dotted = ".".join(_words(location))
            yield Mistake(location, _WHY_REQUIRED.get(dotted, "it is required and missing"))
        elif kind == "extra_forbidden":
            yield Mistake(location, "there is no such key" + _did_you_mean(location))
        else:
            what = told["msg"].removeprefix("Value error, ")
            yield Mistake(location, what[:1].lower() + what[1:])


def _did_you_mean(location: tuple[str | int, ...]) -> str:
    known = _keys_at(Settings, location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; there are {', '.join(known)}" if known else ""


def _keys_at(annotation: Any, location: tuple[str | int, ...]) -> list[str]:
    """The keys that the model at a location of a ValidationError has."""
    models = [m for m in _models_in(annotation)]
    if not location:
        return [field.alias or name for m in models for name, field in m.model_fields.items()]
    step, rest = location[0], location[1:]
    for model in models:
        for name, field in model.model_fields.items():
            if step in (name, field.alias):
                return _keys_at(field.annotation, rest)
        # The tag of a union is part of the location: ("stack", "process", "supervisor_config").
        kind = model.model_fields.get("kind")
        if kind is not None and step in typing.get_args(kind.annotation):
            return _keys_at(model, rest)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _keys_at(arguments[0], location)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((keys for a in arguments if (keys := _keys_at(a, location))), [])
    # A mapping's values or a tuple's members: the step is their key or index.
    return next((keys for a in reversed(arguments) if (keys := _keys_at(a, rest))), [])


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _settings_error(file: Path, data: Any, mistakes: list[Mistake]) -> SettingsError:
    told = []
    for mistake in mistakes:
        line, words = _address(data, mistake.location)
        key = ".".join(words)
        end = "" if mistake.what.endswith("?") else "."
        told.append((line, f"{file}:{line}: {key + ': ' if key else ''}{mistake.what}{end}"))
    told.sort(key=lambda item: item[0])
    count = "1 mistake" if len(told) == 1 else f"{len(told)} mistakes"
    lines = "\n".join(f"  {text}" for _, text in told)
    return SettingsError(
        f"Reading the settings: {count}.\n{lines}\n", hint="Nothing was done. Correct the settings."
    )


def _address(data: Any, location: tuple[str | int, ...]) -> tuple[int, list[str]]:
    """The line of a location, or of the nearest thing above it that is in the file; its words."""
    line, words = 1, []
    for index, step in enumerate(location):
        try:
            if isinstance(data, Mapping) and step in data:
                line = data.lc.key(step)[0] + 1
            elif isinstance(data, list) and isinstance(step, int):
                line = data.lc.item(step)[0] + 1
            elif isinstance(data, Mapping) and index == len(location) - 1:
                words.append(str(step))  # a key that is missing
                continue
            else:
                continue  # a union's tag, which is not in the file
            data = data[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            data = data[step] if isinstance(data, (Mapping, list)) else None
        words.append(str(step))
    return line, words


def _words(location: tuple[str | int, ...]) -> list[str]:
    return [str(step) for step in location]
