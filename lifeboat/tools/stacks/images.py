"""What lies in an image, taken out without running it beside the platform."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from lifeboat.core.errors import PermanentError, PreconditionError
from lifeboat.tools.stacks import engine

TAKEN_OUT = "/lifeboat-out"
_SECONDS = 300.0


def image_id(image: str) -> str:
    """The id of an image on this host. Raises PreconditionError if it is not here."""
    from docker.errors import ImageNotFound

    with engine.connected() as client:
        try:
            return client.images.get(image).id
        except ImageNotFound as error:
            raise PreconditionError(
                f"Looking for the image {image}: the engine does not have it.",
                hint="Build or pull it: `docker compose build`, or `docker compose pull`.",
            ) from error


def take_out(image: str, script: str, into: Path) -> None:
    """Let a script in a throw-away container put files into TAKEN_OUT, and bring them here.

    The container has no network, no volume and no secret. `into` must be empty or absent.
    """
    into.mkdir(parents=True, exist_ok=True)
    with engine.connected(_SECONDS) as client:
        container = client.containers.create(
            image_id(image),
            entrypoint=["sh", "-eu", "-c", script],
            command=[],
            user="0",
            network_mode="none",
            healthcheck={"test": ["NONE"]},
            labels={"lifeboat": "take-out"},
        )
        try:
            container.start()
            ended = container.wait(timeout=_SECONDS)["StatusCode"]
            if ended:
                said = container.logs(tail=5).decode(errors="replace").strip()
                raise PermanentError(
                    f"Looking into the image {image}: exit code {ended}: {said}.",
                    hint="Is it the image that you mean?",
                )
            chunks, _ = container.get_archive(TAKEN_OUT)
            with tempfile.TemporaryFile(dir=into.parent) as archive:
                for chunk in chunks:
                    archive.write(chunk)
                archive.seek(0)
                with tarfile.open(fileobj=archive) as packed:
                    packed.extractall(into, members=_below_top(packed), filter="data")
        finally:
            container.remove(force=True, v=True)


def _below_top(packed: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The members without the directory that all of them lie in."""
    top = Path(TAKEN_OUT).name + "/"
    found = []
    for member in packed.getmembers():
        if member.name.startswith(top):
            member.name = member.name.removeprefix(top)
            found.append(member)
    return found
