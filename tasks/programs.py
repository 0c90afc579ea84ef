"""PostgreSQL's programs on this host, out of the image that the platform's own database runs."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from pathlib import Path

from lifeboat.core.errors import PreconditionError
from lifeboat.settings import ComposeStackSettings, Settings
from lifeboat.tools import filesystem
from lifeboat.tools.postgres import programs
from lifeboat.tools.stacks import images
from tasks.orchestration import step
from tasks.services import compose_stack_of

log = logging.getLogger("lifeboat")

_NEEDED_BYTES = 400_000_000


@step(retries=1)
def bring_programs(settings: Settings) -> str:
    """Put the programs where lifeboat.yaml says; give the image they are from, or nothing.

    Nothing to do where they are this host's own, or from that image already. Raises
    PreconditionError if the image is not on this host.
    """
    told, stack = settings.database, settings.stack
    if told.programs == "host" or not isinstance(stack, ComposeStackSettings):
        return ""
    link = told.bin_directory
    assert link is not None  # the settings see to it
    image = compose_stack_of(settings, stack).image_of(told.service)
    identity = images.image_id(image).removeprefix("sha256:")[:16]
    place = link.with_name(f"{link.name}-{identity}")
    if link.exists() and not link.is_symlink():
        raise PreconditionError(
            f"Taking PostgreSQL's programs out of {image}: {link} is there and is not ours.",
            hint="Set database.bin_directory to a place of its own.",
        )
    if not place.is_dir():
        link.parent.mkdir(parents=True, exist_ok=True)
        filesystem.require_free(link.parent, _NEEDED_BYTES, doing="Taking PostgreSQL's programs")
        part = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
        try:
            script = programs.COLLECT.replace("{out}", images.TAKEN_OUT)
            images.take_out(image, script, part)
            programs.wrap(part)
            part.rename(place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        log.info("PostgreSQL's programs are taken out of the image %s.", image)
    _point(link, programs.directory_in(place))
    return image


def _point(link: Path, target: Path) -> None:
    """Let the link point there, at any moment to a whole tree."""
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    part = link.with_name(f".{link.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(os.path.relpath(target, link.parent))
    part.replace(link)
