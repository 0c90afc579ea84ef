"""The Docker engine: reached within seconds or refused with a reason, and what it says.

Source: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientError,
)
from lifeboat.tools import process
from lifeboat.tools.stacks.protocol import ServiceState, ServiceStatus

if TYPE_CHECKING:
    from docker.models.containers import Container

ENGINE_SECONDS = 10.0
PING_SECONDS = 5.0

# Which engine, and how to reach it; everything else of our environment stays outside, so that the
# Compose file means the same whoever runs Lifeboat: its values come from the environment file.
_ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"
_OF_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_PROJECT_LABEL = "com.docker.compose.project"
_SERVICE_LABEL = "com.docker.compose.service"
_ONE_OFF_LABEL = "com.docker.compose.oneoff"

# 128 + the signal that asked it to end: SIGINT or SIGTERM, without a handler of its own.
_ASKED_TO_END = (0, 130, 143)
_KILLED = 137

# Our own image says so of every container that is made from it.
_OURS = ("lifeboat", "own")


def environment() -> dict[str, str]:
    ours = process.environment()
    return {name: ours[name] for name in _ENGINE_VARIABLES if ours.get(name)}


@contextlib.contextmanager
def connected(timeout_seconds: float = ENGINE_SECONDS) -> Iterator[Any]:
    """A client of the engine, and its errors as ours."""
    import docker
    import requests
    from docker.errors import APIError, DockerException

    ours = environment()
    try:
        client = docker.DockerClient.from_env(environment=ours, timeout=timeout_seconds)
    except (DockerException, OSError) as error:
        raise _unreachable(error) from error
    try:
        yield client
    except APIError as error:
        kind = TransientError if error.is_server_error() else PermanentError
        raise kind(f"The Docker engine refused: {error.explanation or error}.") from error
    except (requests.exceptions.RequestException, DockerException) as error:
        raise _unreachable(error) from error
    except OSError as error:
        # Its own errors are wrapped; what is left is the caller's: a full disk, a file that may not
        # be written. A connection that breaks has no file's name, and no such number.
        if error.filename is not None or error.errno in _OF_FILES:
            raise
        raise _unreachable(error) from error
    finally:
        client.close()


def require() -> None:
    """Raise TransientError or PreconditionError within seconds unless the engine answers."""
    with connected(PING_SECONDS) as client:
        client.ping()


def volumes_directory() -> Path:
    """Where the engine keeps its volumes. Raises as `require`."""
    with connected(PING_SECONDS) as client:
        return Path(client.info()["DockerRootDir"], "volumes")


def _unreachable(error: BaseException) -> RecoveryError:
    where = environment().get("DOCKER_HOST", _DEFAULT_ENGINE)
    said = " ".join(str(error).split())
    if "PermissionError" in said or "Permission denied" in said:
        return PreconditionError(
            f"Reaching the Docker engine at {where}: this user may not use it.",
            hint="Run as root, or put the user into the group docker.",
        )
    if "FileNotFoundError" in said or "No such file" in said:
        return PreconditionError(
            f"Reaching the Docker engine at {where}: there is none.",
            hint="Install Docker, start it (systemctl start docker), or set DOCKER_HOST.",
        )
    if "timed out" in said.lower():
        return TransientError(
            f"Reaching the Docker engine at {where}: it hangs.",
            hint="Look at its log (journalctl -u docker) and at the disk; then restart it.",
        )
    return TransientError(
        f"Reaching the Docker engine at {where}: it does not answer ({said}).",
        hint="Start it (systemctl start docker), or set DOCKER_HOST.",
    )


def gone(error: CommandFailed) -> TransientError:
    where = environment().get("DOCKER_HOST", _DEFAULT_ENGINE)
    return TransientError(
        f"{error.doing}: the Docker engine at {where} does not answer.",
        hint="Start it (systemctl start docker), then try again.",
    )


def containers_of(client: Any, project: str) -> dict[str, list[Container]]:
    """The project's containers by service, running or not."""
    found: dict[str, list[Container]] = {}
    labels = [f"{_PROJECT_LABEL}={project}", f"{_ONE_OFF_LABEL}=False"]
    listed = client.containers.list(
        all=True, filters={"label": labels}, ignore_removed=True, sparse=False
    )
    for container in sorted(listed, key=lambda c: c.name):
        found.setdefault(container.labels.get(_SERVICE_LABEL, ""), []).append(container)
    return found


def strangers_at(client: Any, path: Path, *, project: str) -> tuple[str, ...]:
    """Running containers that may write there and are no services of the project."""
    found = []
    for container in client.containers.list(ignore_removed=True):
        labels = container.labels
        if labels.get(_OURS[0]) == _OURS[1]:
            continue  # it heeds the platform's lock
        if labels.get(_PROJECT_LABEL) == project and labels.get(_ONE_OFF_LABEL) == "False":
            continue
        for mount in container.attrs.get("Mounts", ()):
            place = Path(mount.get("Source", ""))
            if mount.get("RW") and (path.is_relative_to(place) or place.is_relative_to(path)):
                found.append(container.name)
                break
    return tuple(sorted(found))


# --- what a container is --------------------------------------------------------------------

NO_USAGE = (0, 0.0)
_GROUPS = Path("/sys/fs/cgroup")
_WORST_FIRST = (
    ServiceState.FAILED,
    ServiceState.STOPPED,
    ServiceState.STARTING,
    ServiceState.RUNNING,
)


def status_of(
    name: str, containers: Sequence[tuple[Container, tuple[int, float]]]
) -> ServiceStatus:
    """One service, of as many containers as it has: as bad as the worst of them."""
    if not containers:
        return ServiceStatus(name, ServiceState.STOPPED, detail="it has no container")
    judged = [(*_judge(container.attrs["State"]), container) for container, _ in containers]
    state, detail, worst = min(judged, key=lambda one: _WORST_FIRST.index(one[0]))
    told = worst.attrs["State"]
    pid = told.get("Pid") or None
    return ServiceStatus(
        name=name,
        state=state,
        pid=pid,
        started_at=_moment(told.get("StartedAt", "")) if pid else None,
        memory_bytes=sum(memory for _, (memory, _) in containers),
        cpu_seconds=sum(seconds for _, (_, seconds) in containers),
        detail=detail,
        failing=told.get("Status") == "restarting"
        or (told.get("Health") or {}).get("Status") == "unhealthy",
    )


def _judge(told: Mapping[str, Any]) -> tuple[ServiceState, str]:
    """State and detail of a container, given the engine's `State` of it."""
    what, code = told.get("Status", ""), told.get("ExitCode", 0)
    if what == "running":
        health = told.get("Health") or {}
        if health.get("Status", "none") in ("healthy", "none", ""):
            return ServiceState.RUNNING, health.get("Status", "").replace("none", "")
        said = " ".join(str((health.get("Log") or [{}])[-1].get("Output", "")).split())
        return ServiceState.STARTING, f"{health['Status']}: {said[:200]}".rstrip(": ")
    if what == "restarting":
        return ServiceState.STARTING, f"ended with exit code {code}, starts again"
    if what == "paused":
        return ServiceState.FAILED, "paused"
    if what == "created":
        return ServiceState.STOPPED, told.get("Error", "")
    if told.get("OOMKilled"):
        return ServiceState.FAILED, "ended by the kernel, because memory ran out"
    if told.get("Error"):
        return ServiceState.FAILED, told["Error"]
    if what == "exited" and code in _ASKED_TO_END:
        return ServiceState.STOPPED, f"ended with exit code {code}" if code else ""
    return (
        ServiceState.FAILED,
        "ended by SIGKILL: it was killed, or too slow to stop"
        if code == _KILLED
        else (f"ended with exit code {code}"),
    )


def _moment(text: str) -> float | None:
    """Seconds since the epoch of the engine's 2026-01-31T03:14:15.123456789Z."""
    try:
        return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()
    except ValueError:
        return None


def usage_of(container: Container) -> tuple[int, float]:
    """Bytes of memory that can't be taken back, and seconds of CPU time, of a whole container.

    From the kernel where it can be read, which takes milliseconds; the engine's own answer takes a
    second, and is asked only from inside of another container.
    """
    from docker.errors import APIError, NotFound

    if container.status != "running":
        return NO_USAGE
    seen = _usage_here(container.attrs["State"].get("Pid", 0), container.id)
    if seen is not None:
        return seen
    try:
        told = container.stats(stream=False, one_shot=True)
    except (APIError, NotFound):
        return NO_USAGE  # it ended meanwhile
    memory = told.get("memory_stats", {})
    # The page cache is given back when it is needed; v2 and v1 of cgroups name it differently.
    parts = memory.get("stats", {})
    cache = parts.get("inactive_file", parts.get("total_inactive_file", 0))
    spent = told.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)
    return max(0, memory.get("usage", 0) - cache), spent / 1e9


def _usage_here(pid: int, container_id: str) -> tuple[int, float] | None:
    """The same from the kernel's control groups, versions 1 and 2; None where it can't be read."""
    groups = {}
    try:
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # A number alone may be another process's, seen from where we are.
            if container_id in path:
                groups.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
        if "memory" in groups:
            memory = _GROUPS / "memory" / groups["memory"]
            used = int((memory / "memory.usage_in_bytes").read_text())
            cache = _value_of(memory / "memory.stat", "total_inactive_file")
            spent = int((_GROUPS / "cpuacct" / groups["cpuacct"] / "cpuacct.usage").read_text())
            return max(0, used - cache), spent / 1e9
        group = _GROUPS / groups[""]
        used = int((group / "memory.current").read_text())
        cache = _value_of(group / "memory.stat", "inactive_file")
        return max(0, used - cache), _value_of(group / "cpu.stat", "usage_usec") / 1e6
    except (OSError, ValueError, KeyError, StopIteration):
        return None


def _value_of(file: Path, name: str) -> int:
    return next(
        int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == name
    )
