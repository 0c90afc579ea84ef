"""What contradicts itself across the sections of lifeboat.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path

from lifeboat.core.checklist import Checks
from lifeboat.settings.environment import SECRETS
from lifeboat.settings.model import Settings
from lifeboat.settings.yaml_model import Mistake


def contradictions(settings: Settings) -> Iterator[Mistake]:
    yield from _services_named_twice(settings)
    yield from _unknown_services(settings)
    yield from _names_used_twice(settings)
    yield from _places_in_each_other(settings)
    yield from _unknown_sessions(settings.checks)
    yield from _programs_of_no_image(settings)
    yield from _public_and_not_kept(settings)


def _services_named_twice(settings: Settings) -> Iterator[Mistake]:
    seen: dict[str, str] = {}
    for key in ("critical_services", "deferred_services", "backup_services"):
        for index, name in enumerate(getattr(settings.stack, key)):
            if name in seen:
                yield Mistake(("stack", key, index), f"service {name} is already in {seen[name]}")
            seen[name] = key
    for name in settings.stack.without:
        if name in seen:
            yield Mistake(("stack", "without", name), f"service {name} is in {seen[name]}")


def _unknown_services(settings: Settings) -> Iterator[Mistake]:
    critical = settings.stack.critical_services
    if settings.database.service not in critical:
        yield Mistake(
            ("database", "service"),
            f"{settings.database.service} is not among stack.critical_services"
            + _close(settings.database.service, critical),
        )
    known = settings.stack.services
    for section in ("files", "models"):
        for index, name in enumerate(getattr(settings, section).services):
            if name not in known:
                yield Mistake(
                    (section, "services", index),
                    f"{name} is not among the services of `stack`" + _close(name, known),
                )

    shown = (*critical, *settings.stack.deferred_services)
    hosted = settings.status_page.hosted
    for keys, names in (
        (("health",), settings.status_page.health),
        (("hosted", "components"), hosted.components if hosted else {}),
    ):
        for name in names:
            if name not in shown:
                yield Mistake(
                    ("status_page", *keys, name),
                    f"{name} is no service that the page shows" + _close(name, shown),
                )


def _programs_of_no_image(settings: Settings) -> Iterator[Mistake]:
    if settings.database.programs == "image":
        if settings.stack.kind != "compose":
            yield Mistake(("database", "programs"), "only a stack of kind `compose` has images")
        if settings.database.bin_directory is None:
            yield Mistake(
                ("database", "programs"), "`image` needs bin_directory, where they are put"
            )


def _names_used_twice(settings: Settings) -> Iterator[Mistake]:
    for name in settings.models.directories:
        if name in settings.files.directories:
            yield Mistake(
                ("models", "directories", name), "files.directories has the same name already"
            )
    seen: set[str] = set()
    for index, path in enumerate(settings.config.paths):
        if path.name in seen:
            yield Mistake(
                ("config", "paths", index), f"another path here ends in {path.name} as well"
            )
        seen.add(path.name)


def _places_in_each_other(settings: Settings) -> Iterator[Mistake]:
    """A backup of the vault into itself; or data that two restores would both replace."""
    vault = settings.vault.local
    data: dict[tuple[str | int, ...], Path] = {
        ("database", "data_directory"): settings.database.data_directory
    }
    for section in ("files", "models"):
        for name, path in getattr(settings, section).directories.items():
            data[(section, "directories", name)] = path
    kept = {("config", "paths", i): path for i, path in enumerate(settings.config.paths)}
    for location, path in (data | kept).items():
        if path.is_relative_to(vault):
            yield Mistake(location, f"{path} lies in the vault ({vault}); it would go with it")
        elif vault.is_relative_to(path):
            yield Mistake(location, f"the vault ({vault}) lies in {path}; it would back up itself")
    places = list(data.items())
    for position, (location, path) in enumerate(places):
        for other, there in places[:position]:
            if path.is_relative_to(there) or there.is_relative_to(path):
                yield Mistake(
                    location, f"{path} overlaps with {'.'.join(map(str, other))} ({there})"
                )


def _unknown_sessions(checks: Checks) -> Iterator[Mistake]:
    for name in type(checks).model_fields:
        wanted = getattr(getattr(checks, name), "session", "")
        if wanted and wanted not in checks.sessions:
            yield Mistake(
                ("checks", name, "session"),
                f"checks.sessions has no {wanted}" + _close(wanted, checks.sessions),
            )


def _public_and_not_kept(settings: Settings) -> Iterator[Mistake]:
    """What is public without being in the vault; and secrets that are said to be none."""
    public = settings.config.public
    if public is None:
        return
    for index, path in enumerate(public.paths):
        if not any(path.is_relative_to(kept) for kept in settings.config.paths):
            yield Mistake(
                ("config", "public", "paths", index),
                f"{path} is not in config.paths, so that the vault would not have it",
            )
    for index, name in enumerate(public.not_secret):
        if name in SECRETS:
            yield Mistake(
                ("config", "public", "not_secret", index), f"{name} is a secret ({SECRETS[name]})"
            )


def _close(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""
