"""A Docker engine for tests and drills: the one that runs here, or a private one of our own.

    python scripts/docker_engine.py start     prints DOCKER_HOST; nothing to do if one answers
    python scripts/docker_engine.py stop      ends the private engine, and never another one

The private engine needs root and Debian's `docker.io`. It keeps its images in .lifeboat/docker, so
that they are made once. No registry is asked: the base image debian:trixie-slim is made with
debootstrap by way of the mirror that this machine's apt is configured to use (25 s).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fetch_debian
from fetch_debian import Unavailable

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".lifeboat" / "docker"
BASE_IMAGE = "debian:trixie-slim"
BASE_RELEASE = "trixie"

_DEFAULT = "unix:///var/run/docker.sock"
# As in https://github.com/debuerreotype/debuerreotype
_SLIM = {
    "etc/dpkg/dpkg.cfg.d/docker": (
        "force-unsafe-io\n"
        "path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n"
        "path-exclude /usr/share/locale/*\npath-exclude /usr/share/man/*\n"
    ),
    "etc/apt/apt.conf.d/docker": (
        'APT::Keep-Downloaded-Packages "false";\n'
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        'Acquire::Languages "none";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
        'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
    ),
}
_NOT_IN_SLIM = (
    *("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*.log"),
    *("usr/share/locale/*", "usr/share/man/*"),
)
_START_SECONDS = 60
_STOP_SECONDS = 30
_IMAGE_SECONDS = 900


def ensure() -> str:
    """Return the DOCKER_HOST of an engine that answers and has the base image.

    Raise Unavailable, saying what is missing, if there is none and none can be started.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time():
        host = _running() or _start()
        _ensure_base_image(host)
    return host


def stop() -> bool:
    """End the private engine with all its containers; say whether there was one."""
    noted = _noted()
    if noted is None:
        return False
    os.kill(noted["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _is_ours(noted):
        if time.monotonic() > deadline:
            os.kill(noted["pid"], signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(noted["runtime"], ignore_errors=True)
    (HOME / "engine.json").unlink(missing_ok=True)
    return True


def running_privately() -> str:
    """DOCKER_HOST of the private engine, if it runs."""
    noted = _noted()
    return noted["host"] if noted else ""


def answers(host: str, seconds: float = 5) -> bool:
    """Whether an engine answers there."""
    try:
        done = subprocess.run(
            ["docker", "--host", host, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _running() -> str | None:
    noted = _noted()
    candidates = [os.environ.get("DOCKER_HOST"), noted and noted["host"], _DEFAULT]
    return next((host for host in candidates if host and answers(host)), None)


def _start() -> str:
    missing = [name for name in ("dockerd", "docker", "iptables") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        why = f"{', '.join(missing)} not installed" if missing else "this is not root"
        raise Unavailable(f"No Docker engine answers, and none can be started here: {why}.")
    # Sockets lie here: their paths may have 107 characters only.
    runtime = Path(tempfile.mkdtemp(prefix="lifeboat-docker-", dir="/tmp"))
    host = f"unix://{runtime}/docker.sock"
    log = (HOME / "dockerd.log").open("ab")
    daemon = subprocess.Popen(
        [
            *("dockerd", "--data-root", HOME / "data", "--exec-root", runtime / "exec"),
            *("--host", host, "--pidfile", runtime / "pid"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    noted = {"pid": daemon.pid, "host": host, "runtime": str(runtime)}
    (HOME / "engine.json").write_text(json.dumps(noted))
    deadline = time.monotonic() + _START_SECONDS
    while not answers(host):
        if daemon.poll() is not None or time.monotonic() > deadline:
            stop()
            tail = (HOME / "dockerd.log").read_text(errors="replace").splitlines()[-5:]
            raise Unavailable("The Docker engine does not start:\n  " + "\n  ".join(tail))
        time.sleep(0.2)
    return host


def _noted() -> dict | None:
    """The private engine that was started, if it is still that process."""
    try:
        noted = json.loads((HOME / "engine.json").read_text())
    except (OSError, ValueError):
        return None
    return noted if _is_ours(noted) else None


def _is_ours(noted: dict) -> bool:
    try:
        words = Path(f"/proc/{noted['pid']}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{noted['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return noted["host"].encode() in words and state != "Z"


def _ensure_base_image(host: str) -> None:
    docker = ["docker", "--host", host]
    known = subprocess.run([*docker, "image", "inspect", BASE_IMAGE], capture_output=True)
    if known.returncode == 0:
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise Unavailable(
            f"There is no image {BASE_IMAGE}: pull it, or install debootstrap and be root."
        )
    mirrors = fetch_debian.debian_mirrors()
    if not mirrors:
        raise Unavailable("This machine's package sources name no mirror of Debian.")
    with tempfile.TemporaryDirectory(prefix="base-", dir=HOME) as directory:
        root = Path(directory, "root")
        keyring = [f"--keyring={mirrors[0].signed_by}"] if mirrors[0].signed_by else []
        words = ["debootstrap", "--variant=minbase", *keyring, BASE_RELEASE, root, mirrors[0].uri]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_IMAGE_SECONDS)
        if done.returncode:
            raise Unavailable(f"debootstrap failed: {done.stdout[-600:]}{done.stderr[-600:]}")
        _slim(root)
        pack = ["tar", "--create", "--directory", str(root), "--numeric-owner", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [*docker, "import", "--change", 'CMD ["bash"]', "-", BASE_IMAGE],
                stdin=tar.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        if tar.returncode:
            raise Unavailable(f"tar ended with {tar.returncode}")


def _slim(root: Path) -> None:
    """Leave out what Debian's own slim image leaves out, now and in every image built on it."""
    for name, text in _SLIM.items():
        (root / name).write_text(text)
    for name in _NOT_IN_SLIM:
        for path in root.glob(name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (HOME / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    if sys.argv[1:] == ["stop"]:
        print("stopped" if stop() else "there was none")
        return 0
    if sys.argv[1:] != ["start"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(ensure())
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
