"""Reading lifeboat.yaml: paths resolved, and what contradicts itself told with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifeboat.settings.base import VOLUMES_DIRECTORY
from lifeboat.settings.contradictions import contradictions
from lifeboat.settings.environment import CONFIG_VARIABLE, default_config_path
from lifeboat.settings.model import Settings
from lifeboat.settings.yaml_model import read_model

_WHY_REQUIRED = {
    "vault.s3": "it is required: without a copy off this host a lost server can't be recovered",
    "config": "it is required: without its configuration a lost server can't be rebuilt",
}


def load_settings(path: Path | str | None = None, *, directory: Path | None = None) -> Settings:
    """Read lifeboat.yaml and the secrets that go with it.

    Relative paths are below `directory`, by default the one of the file: a copy of the settings can
    be read before it lies where it will lie.

    Raises SettingsError with every mistake, each as `file:line: key: what is wrong`.
    """
    file = Path(path) if path else default_config_path()
    file = file.expanduser().absolute()
    settings = read_model(
        file,
        Settings,
        what="the settings",
        where_hint=f"Name it with --config or {CONFIG_VARIABLE}, or change to its directory.",
        context=lambda data: _context(data, below=directory or file.parent),
        contradictions=contradictions,
        why_required=_WHY_REQUIRED,
    )
    settings._file = directory / file.name if directory else file
    return settings


def _context(data: Mapping[str, Any], *, below: Path) -> dict[str, Path]:
    """What paths in all sections need to know: what they are below, and where volumes lie."""
    stack = data.get("stack")
    told = stack.get("volumes_directory") if isinstance(stack, Mapping) else None
    volumes = told if isinstance(told, str) else VOLUMES_DIRECTORY
    return {"directory": below, "volumes": below / volumes}
