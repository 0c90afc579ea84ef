"""A YAML file as a model, with every mistake told by its line and its dotted key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from lifeboat.core.errors import SettingsError

M = TypeVar("M", bound=BaseModel)


class Mistake(NamedTuple):
    """Something wrong at a key, e.g. `("stack", "deferred_services", 0)`."""

    location: tuple[str | int, ...]
    what: str


def read_model(
    file: Path,
    model: type[M],
    *,
    what: str,
    where_hint: str,
    context: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {},
    contradictions: Callable[[M], Iterable[Mistake]] = lambda _: (),
    why_required: Mapping[str, str] = types.MappingProxyType({}),
) -> M:
    """Read a file whose keys are those of `model`; `what` is its name in messages.

    `context` makes what the model's validators are given from the data, which is not proven yet.

    Raises SettingsError with every mistake, each as `file:line: key: what is wrong`.
    """
    data = _read_yaml(file, what, where_hint)
    plain = _plain(data)
    try:
        found = model.model_validate(plain, context=context(plain))
    except ValidationError as error:
        mistakes = list(_mistakes(error, model, why_required))
        raise _error_of(file, data, mistakes, what) from error
    mistakes = list(contradictions(found))
    if mistakes:
        raise _error_of(file, data, mistakes, what)
    return found


def _read_yaml(file: Path, what: str, where_hint: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"Reading {what}: there is no {file}.", hint=where_hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"Reading {what}: {file} can't be read ({error}).",
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


def _mistakes(
    error: ValidationError, model: type[BaseModel], why_required: Mapping[str, str]
) -> Iterator[Mistake]:
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
            yield Mistake(location, why_required.get(dotted, "it is required and missing"))
        elif kind == "extra_forbidden":
            yield Mistake(location, "there is no such key" + _did_you_mean(model, location))
        else:
            what = told["msg"].removeprefix("Value error, ")
            yield Mistake(location, what[:1].lower() + what[1:])


def _did_you_mean(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    known = _keys_at(model, location[:-1])
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


def _error_of(file: Path, data: Any, mistakes: list[Mistake], what: str) -> SettingsError:
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
        f"Reading {what}: {count}.\n{lines}\n", hint=f"Nothing was done. Correct {what}."
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
