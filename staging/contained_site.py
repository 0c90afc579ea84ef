"""The staging platform on containers, its backups made by containers of Lifeboat's image too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifeboat.settings import find_compose
from lifeboat.tools.stacks import ComposeStack, JointStack, engine
from staging.compose_site import BESIDE, ComposeSite
from staging.making import write

_BACKUPS = Path(__file__).parents[1] / "containers" / "backups.yml"
_PLACE = Path("config", "lifeboat")
_ENGINE_SECONDS = 60.0
_SOCKET = "unix://"


class ContainedSite(ComposeSite):
    """The staging platform below `root`, all of it as containers but its S3 store.

    LIFEBOAT_IMAGE names the image, LIFEBOAT_PROJECT the Compose project of WAL receiver and keeper.
    """

    kind = "contained"
    backup_stack = (
        "{kind: compose, compose_file: config/lifeboat/docker-compose.yml, "
        "env_file: config/lifeboat/lifeboat.env}"
    )
    templates: Mapping[str, str] = {
        name: place for name, place in ComposeSite.templates.items() if "supervisord" not in name
    }

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.beside_project = os.environ.get("LIFEBOAT_PROJECT") or f"{self.project}-lifeboat"

    @property
    def stack(self) -> JointStack:
        place = self.server / _PLACE
        beside = ComposeStack(
            place / "docker-compose.yml",
            env_file=place / "lifeboat.env",
            program=find_compose(),
            secrets=self.environment(),
        )
        return JointStack(self.containers, beside, beside_names=BESIDE)

    def stop(self) -> None:
        # First what makes backups: it holds on to the database.
        for container in self._beside():
            container.stop()
        super().stop()

    def kill_everything(self) -> tuple[str, ...]:
        return (*self._remove_beside(), *super().kill_everything())

    def lose_server(self) -> tuple[str, ...]:
        return (*self._remove_beside(), *super().lose_server())

    def _beside(self) -> list[Any]:
        found = []
        with engine.connected(_ENGINE_SECONDS) as client:
            for name in BESIDE:
                label = [
                    f"com.docker.compose.project={self.beside_project}",
                    f"com.docker.compose.service={name}",
                ]
                found += client.containers.list(all=True, filters={"label": label})
        return found

    def _remove_beside(self) -> tuple[str, ...]:
        removed = []
        for container in self._beside():
            container.remove(force=True, v=True)
            removed.append(f"container {container.name}")
        return tuple(removed)

    def _write_config(self) -> None:
        super()._write_config()
        place = self.server / _PLACE
        place.mkdir(parents=True)
        shutil.copy(_BACKUPS, place / "docker-compose.yml")
        told = {
            "LIFEBOAT_PROJECT": self.beside_project,
            "LIFEBOAT_IMAGE": os.environ.get("LIFEBOAT_IMAGE") or "lifeboat",
            "LIFEBOAT_DIRECTORY": self.server,
            "LIFEBOAT_MOUNT": self.root,
            "LIFEBOAT_VOLUMES": self.volumes,
            "DOCKER_SOCKET": _socket(),
        }
        lines = "".join(f"{name}={value}\n" for name, value in told.items())
        write(place / "lifeboat.env", lines)


def _socket() -> str:
    """The engine's socket on its host. In a container of ours, that is told by DOCKER_SOCKET."""
    host = engine.environment().get("DOCKER_HOST", "")
    here = host.removeprefix(_SOCKET) if host.startswith(_SOCKET) else "/var/run/docker.sock"
    return os.environ.get("DOCKER_SOCKET") or here
