"""The steps of bootstrap.py, under a Python that is new enough."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import fetch_restic
from leftovers import processes_using

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
MARK = VENV / "finished.json"  # written last: an environment without it was never finished

NEEDED_BYTES = 1_500_000_000  # environment 800 MB, downloads, restic
# Large packages that are not imported when an operator waits; Python compiles them when it must.
NOT_COMPILED = r"/(moto|hypothesis|fontTools|ezdxf|pip|ruff|testcontainers|tests?)/"


class CannotSetUp(Exception):
    """Something is missing that only the user can bring; the message says what, and how."""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with one_at_a_time():
            set_up()
    except (CannotSetUp, fetch_restic.Unavailable) as error:
        print(f"Cannot set up Lifeboat.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up interrupted; what was unfinished is removed.", file=sys.stderr)
        return 130
    return 0


def set_up() -> None:
    """Bring environment and restic to where they should be, doing only what is not done."""
    finished = read_mark()
    rebuild = finished.get("environment") != environment_fingerprint()
    reinstall = rebuild or finished.get("project") != project_fingerprint()
    restic_missing = fetch_restic.find() is None
    if not (reinstall or restic_missing):
        return

    began = time.monotonic()
    check_what_only_the_user_can_bring(rebuild=rebuild, restic_missing=restic_missing)
    fetching = start_fetching_restic() if restic_missing else None  # beside the environment
    try:
        if rebuild:
            build_environment()
        elif reinstall:
            install_project()
            write_mark()
        if fetching:
            finish_fetching_restic(fetching)
    finally:
        if fetching and fetching.poll() is None:
            fetching.terminate()
            fetching.wait()
    say(f"Ready after {time.monotonic() - began:.0f} s.")


def say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold back a second set-up in the same checkout until the first one is through."""
    with LOCK.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up is running here; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- What is there, and what should be ----------------------------------------------------------


def environment_fingerprint() -> str:
    """Return what the environment depends on: the lock, where it lies, and its interpreter.

    Any interpreter that will do, not the one that runs this: choosing another takes `make clean`.
    """
    parts = (LOCK.read_text(), str(VENV), os.path.realpath(PYTHON))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def project_fingerprint() -> str:
    """Return what the installed project depends on: its own part of pyproject.toml."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [told[part] for part in ("build-system", "project")] + [told["tool"]["hatch"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_mark() -> dict[str, str]:
    """Return what the environment was finished for; nothing if it was not, or does not run."""
    if not PYTHON.exists():
        return {}
    try:
        return json.loads(MARK.read_text())
    except (OSError, ValueError):
        return {}


def write_mark() -> None:
    finished = {"environment": environment_fingerprint(), "project": project_fingerprint()}
    unfinished = MARK.with_suffix(".new")
    unfinished.write_text(json.dumps(finished))
    os.replace(unfinished, MARK)


# -- Before anything is touched -----------------------------------------------------------------


def check_what_only_the_user_can_bring(*, rebuild: bool, restic_missing: bool) -> None:
    """Raise CannotSetUp, with everything that is missing and how to get it, or return."""
    missing = []
    if rebuild and not (find_spec("venv") and find_spec("ensurepip")):
        missing.append(
            f"This Python ({sys.executable}) cannot make virtual environments.\n"
            "  Debian, Ubuntu: apt-get install python3-venv"
        )
    if rebuild and (free := shutil.disk_usage(ROOT).free) < NEEDED_BYTES:
        missing.append(
            f"{ROOT} has {free / 1e9:.1f} GB free, and the set-up needs {NEEDED_BYTES / 1e9:.1f}."
        )
    if rebuild and VENV.exists() and (users := processes_using(VENV)):
        missing.append(
            f"{VENV} has to be built anew, and programs are running from it:\n"
            + "".join(f"  {process}\n" for process in users)
            + "  Stop them first (the staging stack: .venv/bin/lifeboat stack down)."
        )
    if restic_missing and not fetch_restic.ways():
        missing.append(
            "There is no restic that is new enough, and neither Homebrew nor apt to fetch it "
            "with.\n" + fetch_restic.how_to_install()
        )
    if missing:
        raise CannotSetUp("\n".join(missing))
    for note in missing_servers():
        say(f"Note, for `make drill`, `make up` and `make test` alone: {note}")


def missing_servers() -> list[str]:
    """Return what to install of the staging stack's servers that no package brings here.

    A platform is protected, and recovered on a blank machine, without them.
    """
    linux, machine = sys.platform == "linux", platform.machine()
    missing = []
    packaged_redis = linux and machine == "x86_64" and sys.version_info < (3, 12)
    if not packaged_redis and not shutil.which("redis-server"):
        missing.append(
            "The staging stack's Redis comes as a package for Python 3.11 on x86_64 Linux only;\n"
            f"  this is Python {platform.python_version()} on {machine} {platform.system()}.\n"
            "  Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis;\n"
            "  or, on x86_64 Linux, take another Python: make PYTHON=/path/to/python3.11 ..."
        )
    if not linux and not shutil.which("weed"):
        missing.append("The staging stack's S3 store is missing: brew install seaweedfs")
    return missing


# -- The environment ----------------------------------------------------------------------------


def build_environment() -> None:
    """Build .venv anew and mark it finished; remove it again if anything goes wrong.

    It is built in its place, for its scripts name their own path: it could not be moved there.
    """
    remove(VENV)
    try:
        say(f"Making .venv with Python {platform.python_version()} ...")
        run("make the virtual environment", sys.executable, "-m", "venv", VENV)
        say("Installing what requirements.lock names (half a minute and more) ...")
        install_locked_pip()
        pip("--no-compile", "-r", LOCK)
        install_project()
        say("Compiling ...")
        compile_packages()
        write_mark()
    except BaseException:
        remove(VENV)
        raise


def install_locked_pip() -> None:
    """Begin with the lock's own pip: it reads the index several times as fast as Debian 12's."""
    entry = re.search(r"^pip==.*\n(?: +--hash=.*\n?)+", LOCK.read_text(), re.MULTILINE)
    if entry is None:
        raise CannotSetUp("requirements.lock names no pip; `make lock` writes it anew.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(entry[0].rstrip("\\\n") + "\n")
        file.flush()
        pip("-r", file.name)


def pip(*arguments: str | Path) -> None:
    """Install exactly what is locked: every file by its hash, no dependency but the listed ones.

    Only ready-made packages: nothing is compiled, and no package's code runs at installation.
    Where from is for the user's own pip configuration to say.
    """
    run(
        "install the packages",
        *(PYTHON, "-m", "pip", "install", "--quiet", "--progress-bar=off"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--no-warn-script-location"),
        *arguments,
    )


def install_project() -> None:
    """Install the project itself, editable, with the builder that the lock brought."""
    run(
        "install the project",
        *(PYTHON, "-m", "pip", "install", "--quiet", "--progress-bar=off"),
        *("--disable-pip-version-check", "--no-build-isolation", "--no-deps"),
        *("--editable", ROOT),
    )


def compile_packages() -> None:
    """Compile on all cores: without it the first command would take twice as long to start."""
    libraries = next((VENV / "lib").glob("python3.*"))
    run(
        "compile the packages",
        *(PYTHON, "-m", "compileall", "-q", "-j", "0", "-x", NOT_COMPILED, libraries),
        # Some packages ship templates that are no Python.
        may_fail=True,
    )


def remove(directory: Path) -> None:
    """Remove a directory, its mark first: whatever stops this, it does not look finished."""
    if directory.is_symlink():
        directory.unlink()
    (directory / MARK.name).unlink(missing_ok=True)
    if directory.exists():
        shutil.rmtree(directory)


def run(doing: str, *command: str | Path, may_fail: bool = False) -> None:
    """Run one step quietly. Raise CannotSetUp with the end of its output if it fails."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
    }
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = child.communicate()
    except BaseException:
        child.kill()
        child.wait()
        raise
    if child.returncode and not may_fail:
        tail = "\n  ".join(output.strip().splitlines()[-15:])
        raise CannotSetUp(
            f"Could not {doing}; nothing half done is left. It said:\n  {tail}\n"
            "If the package index could not be reached, check `pip config list` and try again."
        )


# -- restic -------------------------------------------------------------------------------------


def start_fetching_restic() -> subprocess.Popen[str]:
    say("Fetching restic ...")
    return subprocess.Popen(
        [sys.executable, Path(fetch_restic.__file__)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_fetching_restic(fetching: subprocess.Popen[str]) -> None:
    output, _ = fetching.communicate()
    if fetching.returncode:
        raise fetch_restic.Unavailable(output.strip())
    say(f"Found {output.strip()}")
