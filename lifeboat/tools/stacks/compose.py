"""Services as containers: the Docker SDK looks, Compose's own command line acts.

Sources: https://docs.docker.com/reference/cli/docker/compose/ and the Docker Engine API.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    RecoveryError,
)
from lifeboat.tools import process
from lifeboat.tools.stacks import engine
from lifeboat.tools.stacks.protocol import ServiceState, ServiceStatus, raise_for

READ_SECONDS = 30.0
ACT_SECONDS = 180.0
BUILD_SECONDS = 1800.0
START_SECONDS = 30.0
SETTLED_SECONDS = 1.0
POLL_SECONDS = 0.1

_PROGRAMS = (("docker", "compose"), ("docker-compose",))


@dataclass(frozen=True)
class _Project:
    """What the Compose file says, with everything filled in."""

    name: str
    services: tuple[str, ...]
    grace_seconds: Mapping[str, float]
    images: Mapping[str, str]


_FILLED_TWICE = re.compile(r"failed to mkdir .*: file exists")


class ComposeStack:
    """Services as containers of one Compose project.

    The Compose file is the stack's definition, filled in from `env_file` alone (by default the
    `.env` beside it). The engine is the one that DOCKER_HOST names, else this machine's. Compose v2
    is used, as a plugin of `docker` or as `docker-compose`; `program` names another one. `secrets`
    fill in what must not lie in an environment file.

    Only the services that are asked for are touched, and never those that they depend on: in which
    order things start is decided by whoever starts them. A container with a health check counts as
    starting until it is healthy.
    """

    def __init__(
        self,
        compose_file: Path,
        *,
        env_file: Path | None = None,
        project_name: str | None = None,
        program: Path | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._file = Path(compose_file).absolute()
        self._env_file = Path(env_file).absolute() if env_file else None
        self._project_name = project_name
        self._program = program
        self._secrets = dict(secrets or {})

    def status(self) -> tuple[ServiceStatus, ...]:
        project = self._project()
        with engine.connected() as client:
            found = engine.containers_of(client, project.name)
            everything = [container for some in found.values() for container in some]
            with ThreadPoolExecutor(max_workers=16) as pool:
                usages = dict(zip(everything, pool.map(engine.usage_of, everything), strict=True))
        return tuple(
            engine.status_of(name, [(c, usages[c]) for c in found.get(name, ())])
            for name in project.services
        )

    def logs(self, service: str, lines: int = 50) -> str:
        project = self._project([service])
        with engine.connected() as client:
            told = [
                container.logs(tail=lines).decode(errors="replace")
                for container in engine.containers_of(client, project.name).get(service, ())
            ]
        return "\n".join("".join(told).splitlines()[-lines:])

    def start(self, services: Collection[str]) -> None:
        # A container is made where there is none, and taken as it is where there is one.
        self._start(services, "--no-recreate")

    def stop(self, services: Collection[str]) -> None:
        project = self._project(services)
        engine.require()
        failed: dict[str, str] = {}
        for name in services:
            try:
                self._act(
                    ["stop", name],
                    doing=f"Stopping {name}",
                    timeout_seconds=project.grace_seconds.get(name, 10.0) + ACT_SECONDS,
                )
            except CommandFailed as error:
                failed[name] = error.message
        for status in self.status():
            if status.name in services and status.name not in failed and status.pid:
                failed[status.name] = f"it still runs: {status.detail or status.state}"
        raise_for(failed, "Stopping")

    def restart(self, services: Collection[str]) -> None:
        self.stop(services)
        self.start(services)

    def up(self, services: Collection[str] | None = None) -> None:
        """Like `start`, and make those containers anew whose definition or image has changed."""
        self._start(self._project().services if services is None else services)

    def down(self) -> None:
        """Stop every service.

        Containers, networks and volumes stay: the containers hold the logs of what went wrong.
        """
        self.stop(tuple(reversed(self._project().services)))

    def run_in(
        self,
        service: str,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_seconds: float = 60.0,
    ) -> str:
        self._project([service])
        engine.require()
        status = next(s for s in self.status() if s.name == service)
        if status.pid is None:
            raise PreconditionError(
                f"Running {argv[0]} in {service}: it is {status.state} {status.detail}".strip()
                + ".",
                hint="Start the service first.",
            )
        finished = self._act(
            ["exec", "--no-TTY", service, *argv],
            doing=f"Running {argv[0]} in {service}",
            timeout_seconds=timeout_seconds,
            input=input,
        )
        return finished.stdout.decode(errors="replace")

    def strangers_at(self, path: Path) -> tuple[str, ...]:
        project = self._project()
        with engine.connected() as client:
            return engine.strangers_at(client, path, project=project.name)

    def require_engine(self, volumes: Path | None = None) -> None:
        """Look for Compose and the engine, before there is any Compose file.

        Raises PreconditionError or TransientError if either is not there, or if the engine keeps
        its volumes somewhere else than in `volumes`: what is restored there would never be seen.
        """
        _compose(self._program)
        found = engine.volumes_directory()
        if volumes is not None and found.resolve() != volumes.resolve():
            raise PreconditionError(
                f"Looking for the engine's volumes: it keeps them in {found}, and lifeboat.yaml "
                f"says {volumes}.",
                hint="Nothing was touched. Let the engine's data root and stack.volumes_directory "
                "name one place.",
            )

    def prepare(self, services: Collection[str] | None = None) -> None:
        project = self._project(services or ())
        engine.require()
        names = list(project.services if services is None else services)
        # Images are built from what lies there or pulled, volumes and networks made; containers
        # wait to be started.
        try:
            self._create(names)
        except CommandFailed as error:
            images = sorted({project.images[name] for name in names})
            raise PermanentError(
                f"Preparing {', '.join(names)}: not all images could be pulled or built "
                f"({', '.join(images)}). Compose said: {error.stderr_tail.strip()}",
                hint="No data was touched. See to it that this machine may pull it (`docker "
                "login`), or bring it with `docker load`; then run this again.",
            ) from error

    def _create(self, names: Sequence[str]) -> None:
        """Make containers, which fill empty volumes from their images.

        Two of them that fill one volume at the same moment get into each other's way in the engine,
        and one of them is not made: the next time it finds the volume filled.
        """
        for tries_left in reversed(range(3)):
            try:
                self._act(
                    ["up", "--no-start", "--build", "--no-deps", "--no-recreate", *names],
                    doing=f"Preparing {', '.join(names)}",
                    timeout_seconds=BUILD_SECONDS,
                )
            except CommandFailed as error:
                if not tries_left or not _FILLED_TWICE.search(error.stderr_tail):
                    raise
            else:
                return

    def require_services(self, services: Collection[str]) -> None:
        """Raise PreconditionError for a service that the definition lacks; no engine is asked."""
        self._project(services)

    def image_of(self, service: str) -> str:
        """The image that a service runs, as the definition names it."""
        return self._project([service]).images[service]

    # -- acting

    def _start(self, services: Collection[str], *options: str) -> None:
        self._project(services)
        engine.require()
        failed: dict[str, str] = {}
        for name in services:
            try:
                self._act(
                    ["up", "--detach", "--no-deps", *options, name],
                    doing=f"Starting {name}",
                    timeout_seconds=BUILD_SECONDS,  # an image that is missing is built
                )
            except CommandFailed as error:
                failed[name] = error.message
        failed |= self._wait_until_settled([name for name in services if name not in failed])
        raise_for(failed, "Starting")

    def _wait_until_settled(self, names: Collection[str]) -> dict[str, str]:
        """Given services that were started, return those whose process does not stay, and why."""
        waiting, failed = set(names), {}
        for _ in _until(time.monotonic() + START_SECONDS):
            if not waiting:
                break
            for status in self._bare_status(waiting):
                settled = time.time() - (status.started_at or 0) > SETTLED_SECONDS
                if status.pid and settled:
                    waiting.discard(status.name)
                elif status.state is ServiceState.FAILED or (
                    # It did its work and ended; a service goes on.
                    status.state is ServiceState.STOPPED
                ):
                    waiting.discard(status.name)
                    failed[status.name] = self._why(status)
        return failed | {s.name: self._why(s) for s in self._bare_status(waiting)}

    def _bare_status(self, names: Collection[str]) -> tuple[ServiceStatus, ...]:
        """Like `status`, of some services and without their memory and CPU time."""
        if not names:
            return ()
        project = self._project()
        with engine.connected() as client:
            found = engine.containers_of(client, project.name)
        return tuple(
            engine.status_of(name, [(c, engine.NO_USAGE) for c in found.get(name, ())])
            for name in project.services
            if name in names
        )

    def _why(self, status: ServiceStatus) -> str:
        reason = status.detail or str(status.state)
        last = self.logs(status.name, lines=3).strip()
        return f"{reason}; its log ends: {last}" if last else reason

    def _act(
        self,
        words: Sequence[str],
        *,
        doing: str,
        timeout_seconds: float = ACT_SECONDS,
        input: bytes = b"",
    ) -> process.Finished:
        try:
            return process.run(
                [*_compose(self._program), *self._options(), *words],
                doing=doing,
                cwd=self._file.parent,
                timeout_seconds=timeout_seconds,
                input=input,
                env=self._secrets,
                secrets=tuple(self._secrets.values()),
            )
        except CommandFailed as error:
            if "Cannot connect to the Docker daemon" in error.stderr_tail:
                raise engine.gone(error) from error
            raise

    def _options(self) -> list[str]:
        words = ["--progress", "plain", "--ansi", "never", "--file", str(self._file)]
        if self._env_file:
            words += ["--env-file", str(self._env_file)]
        if self._project_name:
            words += ["--project-name", self._project_name]
        return words

    # -- the Compose file

    def _project(self, names: Collection[str] = ()) -> _Project:
        """Read the definition. Raises PreconditionError for a name that it does not have."""
        for path in filter(None, (self._file, self._env_file)):
            if not path.is_file():
                raise PreconditionError(
                    f"There is no {path}.",
                    hint="Restore the configuration first, or correct `stack` in lifeboat.yaml.",
                )
        beside = self._env_file or self._file.with_name(".env")
        project = _read_project(
            tuple(_compose(self._program)),
            tuple(self._options()),
            self._file,
            tuple((str(p), _stamp(p)) for p in (self._file, beside)),
            tuple(self._secrets.items()),
        )
        unknown = [name for name in names if name not in project.services]
        if unknown:
            raise PreconditionError(
                f"{self._file} has no service {', '.join(unknown)}.",
                hint=f"It has: {', '.join(project.services)}.",
            )
        return project


# --- the Compose file and its program -------------------------------------------------------


@functools.lru_cache(maxsize=16)
def _read_project(
    program: tuple[str, ...],
    options: tuple[str, ...],
    file: Path,
    stamps: tuple[tuple[str, object], ...],
    secrets: tuple[tuple[str, str], ...],
) -> _Project:
    """Let Compose fill the file in. `stamps` change when the file or its environment does."""
    try:
        told = process.run(
            [*program, *options, "config", "--format", "json"],
            doing=f"Reading {file}",
            cwd=file.parent,
            timeout_seconds=READ_SECONDS,
            env=dict(secrets),
            secrets=tuple(value for _, value in secrets),
        )
        definition = json.loads(told.stdout)
        services = definition["services"]
    except CommandFailed as error:
        raise PreconditionError(
            f"Reading {file}: {error.stderr_tail.strip()}.",
            hint="Nothing was touched. Correct the file, or the environment file that fills it in.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PreconditionError(
            f"Reading {file}: there are no services in it.", hint="Nothing was touched."
        ) from error
    written = _keys_in_order(file)
    order = {name: number for number, name in enumerate(written)}
    return _Project(
        name=definition["name"],
        services=tuple(sorted(services, key=lambda name: (order.get(name, len(order)), name))),
        grace_seconds={
            name: _seconds(told["stop_grace_period"])
            for name, told in services.items()
            if told.get("stop_grace_period")
        },
        images={
            name: told.get("image") or f"{definition['name']}-{name}"
            for name, told in services.items()
        },
    )


def _keys_in_order(file: Path) -> list[str]:
    """The services as they are written: Compose gives them back sorted by name."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return list(YAML(typ="safe").load(file.read_text(encoding="utf-8"))["services"])
    except (OSError, YAMLError, KeyError, TypeError, UnicodeDecodeError):
        return []  # all of them are included from elsewhere


def _seconds(duration: str) -> float:
    """Seconds of a Go duration such as 1m30s."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
    found = re.findall(r"([\d.]+)(h|ms|us|ns|m|s)", duration)
    return sum(float(number) * units[unit] for number, unit in found)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size


@functools.lru_cache(maxsize=4)
def _compose(program: Path | None) -> tuple[str, ...]:
    """The words that Compose v2 is called by. Raises PreconditionError if there is none."""
    candidates = ((str(program),),) if program else _PROGRAMS
    seen = []
    for words in candidates:
        try:
            told = process.run(
                [*words, "version", "--short"],
                doing="Asking Compose for its version",
                timeout_seconds=READ_SECONDS,
            )
        except RecoveryError:
            continue
        version = told.stdout.decode(errors="replace").strip().lstrip("v")
        if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= 2:
            return words
        seen.append(f"{' '.join(words)} is {version}")
    told = f" ({'; '.join(seen)})" if seen else ""
    raise PreconditionError(
        f"Looking for Docker Compose v2: neither `docker compose` nor `docker-compose`{told}.",
        hint="Install the package docker-compose-plugin (Docker) or docker-compose (Debian 13).",
    )


def _until(deadline: float) -> Iterator[None]:
    """Yield now and then until the deadline, at least once."""
    yield
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        yield
