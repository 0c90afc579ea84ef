"""The staging platform as containers of one Compose project, with the same manners as `Site`.

<root>/server/ holds the checked-out code with the Compose file, configuration and vault; the data
lies in the engine's named volumes. The engine is the one of DOCKER_HOST.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lifeboat.core.errors import PermanentError
from lifeboat.settings import find_compose, load_settings
from lifeboat.tools.stacks import ComposeStack, JointStack, ProcessStack, ServiceState, engine
from staging import processes
from staging.platform.cad_platform.storage import Store
from staging.seed import Seeded
from staging.site import Site, Urls, write

BESIDE = ("wal-receiver", "keeper")
IMAGES = "cad-staging"
_CAD = 10001  # the platform's own user, see docker/app/Dockerfile
_PROJECT_LABEL = "com.docker.compose.project"
_HERE = Path(__file__).parent
_HEALTH_SECONDS = 120.0
_ENGINE_SECONDS = 60.0  # removing a volume takes its time


class FrontUrls(Urls):
    """Everything goes through nginx, at port 80 of the stack."""

    @property
    def ai_health(self) -> str:
        return f"{self.backend}/ai/health"

    @property
    def ai_inference(self) -> str:
        return f"{self.backend}/ai/inference"

    @property
    def ai_models(self) -> str:
        return f"{self.backend}/ai/models"


class ComposeSite(Site):
    """The staging platform below `root`, as containers. Making this object touches nothing."""

    kind = "compose"
    settings_kind = "compose"
    backup_stack = "{kind: process, supervisor_config: config/supervisord.conf}"
    critical = ("postgres", "redis", "backend", "ai-service", "celery-worker", "frontend", "nginx")
    deferred = ("prometheus", "log-collector")
    directories = ("config/certs", "run", "logs", "backups")
    templates: Mapping[str, str] = {
        "supervisord.beside.conf.j2": "config/supervisord.conf",
        "nginx.platform.conf.j2": "config/nginx/platform.conf",
        "prometheus.compose.yml.j2": "config/monitoring/prometheus.yml",
    }

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.project = f"cad-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    # -- what it is

    @cached_property
    def volumes(self) -> Path:
        """Where the engine keeps its volumes."""
        with engine.connected(_ENGINE_SECONDS) as client:
            return Path(client.info()["DockerRootDir"], "volumes")

    @property
    def database_directory(self) -> Path:
        return self._volume("pgdata")

    @property
    def files(self) -> Path:
        return self._volume("files") / "drawings"

    @property
    def models(self) -> Path:
        return self._volume("models")

    def _volume(self, name: str) -> Path:
        return self.volumes / f"{self.project}_{name}" / "_data"

    @property
    def base_urls(self) -> FrontUrls:
        front = f"http://127.0.0.1:{self.ports.backend}"
        return FrontUrls(front, front, front, f"http://127.0.0.1:{self.ports.s3}")

    @property
    def containers(self) -> ComposeStack:
        """The platform alone, without what makes its backups."""
        return ComposeStack(
            self.server / "app" / "docker-compose.prod.yml",
            env_file=self.server / ".env.production",
            program=find_compose(),
        )

    @property
    def stack(self) -> JointStack:
        beside = ProcessStack(self.supervisor_config)
        return JointStack(self.containers, beside, beside_names=BESIDE)

    # -- what can be done with it

    def wait_until_healthy(
        self, services: Collection[str] | None = None, *, seconds: float = _HEALTH_SECONDS
    ) -> None:
        wanted = set(self.critical if services is None else services)
        deadline = time.monotonic() + seconds
        while True:
            waiting = [
                f"{status.name} {status.state} {status.detail}".strip()
                for status in self.containers.status()
                if status.name in wanted and status.state is not ServiceState.RUNNING
            ]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise PermanentError(
                    f"Starting the staging platform: not healthy after {seconds:g} s "
                    f"({'; '.join(waiting)}).",
                    hint="`docker compose logs` shows why.",
                )
            time.sleep(0.2)

    def stop(self) -> None:
        if self.supervisor_config.exists():
            ProcessStack(self.supervisor_config).down()
        for container in self._containers():
            container.stop()
        if self.exists or (self.outside / "ports.json").exists():
            self.s3.stop()

    # -- what a disaster needs to know

    def kill_database(self) -> tuple[str, ...]:
        killed = []
        for container in self._containers("postgres"):
            if container.status == "running":
                container.kill()
                container.wait(timeout=30)
                killed.append(f"container {container.name}")
        return tuple(killed)

    def kill_everything(self) -> tuple[str, ...]:
        killed = tuple(f"process {pid}" for pid in processes.kill_all(self.root))
        return (*killed, *self._remove_from_engine())

    def lose_server(self) -> tuple[str, ...]:
        killed = tuple(f"process {pid}" for pid in processes.kill_all(self.server))
        removed = self._remove_from_engine()
        shutil.rmtree(self.server)
        return (*killed, *removed)

    def _containers(self, service: str = "") -> list[Any]:
        labels = [f"{_PROJECT_LABEL}={self.project}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        with engine.connected(_ENGINE_SECONDS) as client:
            return client.containers.list(all=True, filters={"label": labels})

    def _remove_from_engine(self) -> tuple[str, ...]:
        """Remove the project's containers, volumes and networks; name the containers."""
        removed = []
        for container in self._containers():
            container.remove(force=True, v=True)
            removed.append(f"container {container.name}")
        with engine.connected(_ENGINE_SECONDS) as client:
            chosen = {"label": f"{_PROJECT_LABEL}={self.project}"}
            for network in client.networks.list(filters=chosen):
                network.remove()
            for volume in client.volumes.list():
                # One that a recovery made before Compose did has no label.
                if volume.name.startswith(f"{self.project}_"):
                    volume.remove(force=True)
            # Also what the engine was never told of.
            for left in self.volumes.glob(f"{self.project}_*"):
                shutil.rmtree(left)
        return tuple(removed)

    # -- how it is made

    def _add_to_code(self, work: Path) -> None:
        shutil.copy(_HERE / "docker-compose.prod.yml", work)
        shutil.copytree(_HERE / "docker", work / "docker")

    def _environment(self) -> dict[str, object]:
        ports = self.ports
        return {
            "PROJECT": self.project,
            "IMAGES": IMAGES,
            "POSTGRES_PORT": ports.postgres,
            "REDIS_PORT": ports.redis,
            "HTTP_PORT": ports.backend,
        }

    def _write_config(self) -> None:
        super()._write_config()
        # Mounted into containers, whose users are not this one; there is no secret in them.
        for name in ("nginx/platform.conf", "monitoring/prometheus.yml"):
            (self.server / "config" / name).chmod(0o644)

    def _names(self) -> dict[str, object]:
        return {
            "project": self.project,
            "volumes_directory": str(self.volumes),
            "backup_stack": self.backup_stack,
        }

    def _make_database(self, scale: float, database_bytes: int | None) -> Seeded:
        from tasks import enrol

        self.containers.prepare()
        self.containers.start(["postgres"])
        try:
            self.wait_until_healthy(["postgres"])
            with self._admin_connection("postgres") as connection:
                password = self.secrets()["POSTGRES_PASSWORD"]
                connection.execute(f"CREATE ROLE cad LOGIN PASSWORD '{password}'")
                connection.execute("CREATE DATABASE cad OWNER cad")
            with self._admin_connection("cad") as connection:
                connection.execute("CREATE EXTENSION amcheck")
            # What the models answer is not known yet, and not asked for.
            write(self.settings_path, self._render("lifeboat.yaml.j2", known_answers={"x": "y"}))
            settings = load_settings(self.settings_path)
            enrol.enrol_role(settings, "postgres")
            enrol.bring_programs(settings)
            store = Store(self.files, self.files.parent / "incoming")
            seeded = self._seed(store, scale, database_bytes)
        finally:
            self.containers.stop(["postgres"])
        for place in (self.files.parent, self.models):
            _give_to(place, _CAD)
        return seeded


def _give_to(place: Path, user: int) -> None:
    for parent, directories, files in os.walk(place):
        for name in (".", *directories, *files):
            os.chown(os.path.join(parent, name), user, user, follow_symlinks=False)


def new_site(root: Path, *, kind: str) -> Site:
    """A staging platform of that kind, to be made below `root`."""
    if kind == "contained":
        from staging.contained_site import ContainedSite

        return ContainedSite(root)
    return ComposeSite(root) if kind == ComposeSite.kind else Site(root)


def site_at(root: Path) -> Site:
    """The staging platform that was made below `root`, of whichever kind it is."""
    try:
        kind = (Path(root) / "outside" / "kind").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kind = Site.kind
    return new_site(root, kind=kind)
