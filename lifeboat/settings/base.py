"""What every section of lifeboat.yaml is made of: paths, volumes, names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

VOLUMES_DIRECTORY = Path("/var/lib/docker/volumes")
_VOLUME = "volume:"
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def _resolve(value: Path, info: ValidationInfo) -> Path:
    """Below the directory of lifeboat.yaml; symbolic links stay, a restore must not follow them.

    `volume:NAME/PATH` is where Docker keeps that volume's content: no engine is asked, because it
    may be down, or not be there yet.
    """
    text = str(value)
    if text.startswith(_VOLUME):
        name, *below = Path(text.removeprefix(_VOLUME)).parts or ("",)
        if not _VOLUME_NAME.fullmatch(name) or ".." in below:
            raise ValueError("a volume is `volume:NAME`, or `volume:NAME/path` inside of it")
        volumes = (info.context or {}).get("volumes", VOLUMES_DIRECTORY)
        return Path(volumes, name, "_data", *below)
    value = value.expanduser()
    if info.context and "directory" in info.context:
        return Path(os.path.normpath(info.context["directory"] / value))
    return value


def resolve_repository(value: str, info: ValidationInfo) -> str:
    # `https://host/path` and `user@host:path` are git's; the rest are paths.
    if ":" in value:
        return value
    return str(_resolve(Path(value), info))


SitePath = Annotated[Path, AfterValidator(_resolve)]
"""A path; a relative one is below the directory of lifeboat.yaml, `volume:NAME` is a volume."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]


class Section(BaseModel):
    """A part of lifeboat.yaml; a key that it does not have is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")
