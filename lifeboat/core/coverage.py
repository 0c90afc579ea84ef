"""Which places of a platform nobody backs up: every one is protected, or excused by name.

A store that was added a year after the backups were set up is lost in silence. So what is looked
at is the platform and not the settings: every volume and bind mount of a compose file, or every
directory beside one that is protected.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lifeboat.core.errors import PreconditionError


@dataclass(frozen=True)
class Place:
    """Somewhere the platform keeps something."""

    name: str  # as `watch.excused` would name it
    path: PurePath | None  # None: it is not known where it lies on this host
    what: str  # e.g. "beside data/postgres", "a volume of redis"
    volume: str = ""  # full name of a volume


@dataclass(frozen=True)
class Protected:
    """What the settings protect."""

    paths: Collection[PurePath]  # backed up, of git, or the vault itself
    excused: Mapping[str, str]  # reason by name


@dataclass(frozen=True)
class Coverage:
    """What came of the comparison. `uncovered`: a reason for each place, by its name."""

    covered: int
    excused: Mapping[str, str]
    uncovered: Mapping[str, str]
    unused_excuses: tuple[str, ...]


def compare(places: Iterable[Place], protected: Protected) -> Coverage:
    """Say of every place whether it is protected, excused with a reason, or neither."""
    covered, excused, uncovered = 0, {}, {}
    used: set[str] = set()
    for place in places:
        names = {place.name, place.volume, str(place.path)}
        excuse = next((name for name in protected.excused if _plain(name) in names), None)
        if excuse is not None:
            used.add(excuse)
        if _is_protected(place, protected.paths):
            covered += 1
        elif excuse is None:
            uncovered[place.name] = place.what + _in_part(place, protected.paths)
        elif not protected.excused[excuse].strip():
            uncovered[place.name] = f"{place.what}; excused without a reason"
        else:
            excused[place.name] = protected.excused[excuse]
    unused = tuple(name for name in protected.excused if name not in used)
    return Coverage(covered, excused, uncovered, unused)


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _is_protected(place: Place, paths: Collection[PurePath]) -> bool:
    if place.path is not None and any(place.path.is_relative_to(path) for path in paths):
        return True
    return bool(place.volume) and any(_root_of(place.volume, path) == path for path in paths)


def _root_of(volume: str, path: PurePath) -> PurePath | None:
    """Docker keeps a volume in `volumes/<its name>/_data`, wherever its own directory lies."""
    parts = path.parts
    for place in range(len(parts) - 1):
        if parts[place : place + 2] == (volume, "_data"):
            return PurePath(*parts[: place + 2])
    return None


def _in_part(place: Place, paths: Collection[PurePath]) -> str:
    inside = sorted(
        str(path)
        for path in paths
        if (place.path is not None and path.is_relative_to(place.path))
        or (place.volume and _root_of(place.volume, path))
    )
    return f"; only {', '.join(inside)} in it is protected" if inside else ""


def name_below(path: PurePath, directory: PurePath) -> str:
    """A path as lifeboat.yaml would name it: relative below its directory, else absolute."""
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


# --- directories of a process stack ---------------------------------------------------------

# What lies beside something in these belongs to the system and not to the platform.
_SYSTEM = frozenset(
    PurePath(path)
    for path in ("/", "/etc", "/home", "/opt", "/tmp", "/usr", "/usr/local", "/var", "/var/lib")
)
_KEPT_ASIDE = re.compile(r"\.damaged-|^lost\+found$")


def parents_to_look_in(protected: Iterable[PurePath]) -> tuple[PurePath, ...]:
    """The directories whose other children have to be protected or excused too."""
    parents = {path.parent for path in protected}
    return tuple(sorted(parents - _SYSTEM))


def places_beside(
    children: Iterable[PurePath], *, protected: Iterable[PurePath], directory: PurePath
) -> tuple[Place, ...]:
    """The places among the children of `parents_to_look_in`, what a recovery kept aside left out.

    `directory` is the one of lifeboat.yaml.
    """
    beside = {path.parent: name_below(path, directory) for path in protected}
    return tuple(
        Place(name_below(child, directory), child, f"beside {beside[child.parent]}")
        for child in sorted(children)
        if child.parent in beside and not _KEPT_ASIDE.search(child.name)
    )


# --- a compose file -------------------------------------------------------------------------

# Mounted to see the host, not to keep anything.
_OF_THE_SYSTEM = tuple(
    PurePath(path)
    for path in ("/proc", "/sys", "/dev", "/run", "/var/run", "/etc/localtime", "/etc/timezone")
)
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::?[-](?P<default>[^}]*))?[^}]*\}|\$(?P<bare>\w+)")


def places_of_compose(
    compose: Any, *, directory: PurePath, project: str, variables: Mapping[str, str]
) -> tuple[Place, ...]:
    """Every volume and bind mount of a parsed compose file, and the files that it hands on.

    `directory` is the compose file's, below which its relative paths are; `variables` fill its
    `${NAME}`. Raise PreconditionError if it is no compose file.
    """
    if not isinstance(compose, Mapping) or not isinstance(compose.get("services"), Mapping):
        raise PreconditionError(
            "Reading the compose file: it names no services.", hint="Look at stack.compose_file."
        )
    reader = _Compose(compose, directory, project, variables)
    found: dict[str, Place] = {}
    for place in reader.places():
        known = found.setdefault(place.name, place)
        if known.what != place.what and place.what not in known.what:
            found[place.name] = Place(
                known.name, known.path, f"{known.what}, {place.what}", known.volume
            )
    return tuple(found[name] for name in sorted(found))


class _Compose:
    def __init__(
        self, compose: Mapping, directory: PurePath, project: str, variables: Mapping[str, str]
    ) -> None:
        self._compose, self._directory = compose, directory
        self._project, self._variables = project, variables

    def places(self) -> Iterator[Place]:
        for service, told in self._compose["services"].items():
            told = told if isinstance(told, Mapping) else {}
            for mount in told.get("volumes") or ():
                place = self._mount(service, mount)
                if place is not None:
                    yield place
            for path in _env_files(told.get("env_file")):
                yield self._file(path, f"environment of {service}")
        for kind in ("configs", "secrets"):
            for name, told in (self._compose.get(kind) or {}).items():
                if isinstance(told, Mapping) and told.get("file"):
                    yield self._file(told["file"], f"{kind[:-1]} {name}")

    def _mount(self, service: str, mount: Any) -> Place | None:
        if isinstance(mount, Mapping):
            kind, source = mount.get("type", "volume"), self._filled(mount.get("source") or "")
            target = str(mount.get("target", "?"))
        else:
            words = self._filled(mount).split(":")
            # `C:\\...` is not for servers; one word alone is a volume without a name.
            source, target = (words[0], words[1]) if len(words) > 1 else ("", words[0])
            kind = "bind" if source[:1] in ("/", ".", "~") else "volume"
        if kind == "bind":
            path = self._path(source)
            if any(path.is_relative_to(known) for known in _OF_THE_SYSTEM):
                return None
            return Place(name_below(path, self._directory), path, f"mounted in {service}")
        if kind != "volume":
            return None  # tmpfs, npipe, cluster: nothing on this host's disk
        if not source:
            return Place(f"{service}:{target}", None, f"a volume of {service} without a name")
        return self._volume(service, source)

    def _volume(self, service: str, name: str) -> Place:
        told = (self._compose.get("volumes") or {}).get(name)
        told = told if isinstance(told, Mapping) else {}
        outside = told.get("external")
        full = self._filled(told.get("name") or (name if outside else f"{self._project}_{name}"))
        options = told.get("driver_opts") or {}
        device = self._filled(options.get("device") or "")
        path = self._path(device) if device[:1] in ("/", ".", "~") else None
        return Place(name, path, f"a volume of {service}", volume=full)

    def _file(self, text: Any, what: str) -> Place:
        path = self._path(self._filled(text))
        return Place(name_below(path, self._directory), path, what)

    def _path(self, text: str) -> PurePath:
        parts: list[str] = []
        for part in (self._directory / text).parts:
            if part == ".." and len(parts) > 1:
                parts.pop()
            elif part != "..":
                parts.append(part)
        return PurePath(*parts)

    def _filled(self, text: Any) -> str:
        def value(match: re.Match[str]) -> str:
            name = match["name"] or match["bare"]
            return self._variables.get(name) or match["default"] or match[0]

        return _VARIABLE.sub(value, str(text))


def _env_files(told: Any) -> Iterator[Any]:
    for one in told if isinstance(told, list) else [told]:
        path = one.get("path") if isinstance(one, Mapping) else one
        if path:
            yield path
