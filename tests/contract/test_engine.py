"""An engine that is absent, hangs, refuses or dies: told clearly, within seconds, nothing touched.

And a Compose file that is wrong.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.core.errors import PermanentError, PreconditionError, TransientError
from lifeboat.settings import find_compose
from lifeboat.tools.stacks import ComposeStack
from lifeboat.tools.stacks.engine import PING_SECONDS

GOOD = "name: nowhere\nservices:\n  one: {image: 'nothing:at-all'}\n"


@pytest.fixture(scope="module")
def compose() -> Path | None:
    """Compose v2 itself, which reads files without any engine."""
    program = find_compose()
    if program is None:
        told = subprocess.run(["docker", "compose", "version"], capture_output=True)
        if told.returncode and os.environ.get("LIFEBOAT_REQUIRE_DOCKER") != "1":
            pytest.skip("there is no Docker Compose v2")
    return program


@pytest.fixture
def stack(tmp_path: Path, compose: Path | None) -> ComposeStack:
    file = tmp_path / "docker-compose.prod.yml"
    file.write_text(GOOD)
    return ComposeStack(file, program=compose)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Something that takes connections where the engine should be, and says nothing."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"lifeboat-test-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(8)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield server
    path.unlink()


def everything(stack: ComposeStack):
    return {
        "status": stack.status,
        "logs": lambda: stack.logs("one"),
        "start": lambda: stack.start(["one"]),
        "stop": lambda: stack.stop(["one"]),
        "up": stack.up,
        "down": stack.down,
        "run_in": lambda: stack.run_in("one", ["true"]),
    }


@pytest.mark.parametrize("act", ["status", "logs", "start", "stop", "up", "down", "run_in"])
def test_no_engine(stack: ComposeStack, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(
        PreconditionError, match=r"/nowhere/docker.sock: there is none.*DOCKER_HOST"
    ):
        everything(stack)[act]()


def test_an_engine_that_refuses_the_connection(
    stack: ComposeStack, listener: socket.socket
) -> None:
    listener.close()
    with pytest.raises(TransientError, match="does not answer.*systemctl start docker"):
        stack.start(["one"])


def test_an_engine_that_hangs(stack: ComposeStack, listener: socket.socket) -> None:
    began = time.monotonic()
    with pytest.raises(TransientError, match="it hangs"):
        stack.start(["one"])
    assert time.monotonic() - began < PING_SECONDS + 5


def test_an_engine_that_hangs_up(stack: ComposeStack, listener: socket.socket) -> None:
    def hang_up() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=hang_up, daemon=True).start()
    with pytest.raises(TransientError, match="does not answer"):
        stack.stop(["one"])
    listener.shutdown(socket.SHUT_RDWR)


def test_an_engine_that_is_not_for_us(stack: ComposeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    from lifeboat.tools.stacks import engine

    said = "Error while fetching server API version: ('...', PermissionError(13, '...'))"
    error = engine._unreachable(OSError(said))
    assert isinstance(error, PreconditionError)
    assert "group docker" in str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services: [", "yaml"),
        ("services:\n  one: {imag: x}\n", "imag"),
        ("services:\n  one: {image: '${TAG:?set it}'}\n", "TAG"),
        ("{}", "no|empty"),
    ],
)
def test_a_file_that_is_wrong(stack: ComposeStack, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "docker-compose.prod.yml").write_text(text)
    with pytest.raises(PreconditionError, match=f"(?s)Reading .*prod.yml: .*({told})"):
        stack.start(["one"])


def test_a_file_that_was_changed_is_read_again(
    stack: ComposeStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PreconditionError, match="no service two"):
        stack.logs("two")
    (tmp_path / "docker-compose.prod.yml").write_text(GOOD + "  two: {image: 'x:y'}\n")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(PreconditionError, match="there is none"):
        stack.logs("two")


def test_a_service_that_the_file_lacks_is_told_without_any_engine(
    stack: ComposeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    stack.require_services(["one"])
    with pytest.raises(PreconditionError, match="no service web, db.*It has: one"):
        stack.require_services(["one", "web", "db"])


def test_values_come_from_the_environment_file_alone(
    tmp_path: Path, compose: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs Lifeboat, from whatever shell: the file means the same."""
    monkeypatch.setenv("TAG", "of-this-shell")
    file = tmp_path / "docker-compose.yml"
    file.write_text("services:\n  one: {image: 'x:${TAG:?not set}'}\n")
    with pytest.raises(PreconditionError, match="TAG"):
        ComposeStack(file, program=compose).logs("one")


@pytest.mark.parametrize("version", ["1.29.2", "nonsense"])
def test_compose_v1_is_refused(stack: ComposeStack, tmp_path: Path, version: str) -> None:
    old = tmp_path / "docker-compose"
    old.write_text(f"#!/bin/sh\necho {version}\n")
    old.chmod(stat.S_IRWXU)
    with pytest.raises(PreconditionError, match=f"v2.*{version}.*Install"):
        ComposeStack(tmp_path / "docker-compose.prod.yml", program=old).status()


# --- with an engine -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/srv/platform/run"),
    ],
)
def test_an_error_of_a_file_is_not_the_engines(docker_host: str, error: OSError) -> None:
    """A full disk while an image is taken out must not be told as an engine that is away."""
    from lifeboat.tools.stacks import engine

    with pytest.raises(OSError) as caught, engine.connected():
        raise error
    assert caught.value is error


def test_a_connection_that_breaks_is_the_engines(docker_host: str) -> None:
    from lifeboat.tools.stacks import engine

    with pytest.raises(TransientError, match="does not answer"), engine.connected():
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def test_volumes_in_another_place_are_told(
    docker_host: str, stack: ComposeStack, tmp_path: Path
) -> None:
    """What is restored to where the engine does not look would never be seen."""
    with pytest.raises(PreconditionError, match=r"keeps them in .*volumes_directory"):
        stack.require_engine(tmp_path)


@pytest.mark.timeout(120)
def test_an_image_that_is_nowhere(docker_host: str, tmp_path: Path, compose: Path | None) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text("name: nowhere\nservices:\n  one: {image: '127.0.0.1:9/nothing:at-all'}\n")
    with pytest.raises(PermanentError, match="(?s)Preparing one: .*nothing.*docker load"):
        ComposeStack(file, program=compose).prepare()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("failures", "ends_well"), [(2, True), (3, False)])
def test_containers_that_fill_one_volume_at_once_are_made_again(
    docker_host: str, tmp_path: Path, compose: Path | None, failures: int, ends_well: bool
) -> None:
    """The engine's own race, which can't be asked for: Compose says what it said then."""
    file, calls = tmp_path / "docker-compose.yml", tmp_path / "calls"
    file.write_text("name: filled\nservices:\n  one: {image: 'debian:trixie-slim'}\n")
    calls.touch()
    racing = tmp_path / "compose"
    racing.write_text(
        f"""#!/bin/sh
case " $* " in *" up "*)
  echo >> {calls}
  [ $(wc -l < {calls}) -gt {failures} ] && exit 0
  echo 'Error response from daemon: failed to mkdir /v/_data/drawings: file exists' >&2; exit 1
esac
exec {compose or "docker compose"} "$@"
"""
    )
    racing.chmod(stat.S_IRWXU)
    stack = ComposeStack(file, program=racing)
    if ends_well:
        stack.prepare()
    else:
        with pytest.raises(PermanentError, match="file exists"):
            stack.prepare()
    assert len(calls.read_text().splitlines()) == 3
