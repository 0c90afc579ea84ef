"""Find a restic that is new enough, or fetch one into the project's own tool folder.

In this order: what was fetched before (.lifeboat/tools/bin/restic), one on PATH, Homebrew, and
apt. Debian 12's restic is too old, so apt means: the machine's own restic if its sources offer a
new one, otherwise the package of Debian's newest stable release, by way of the mirror that the
machine is configured to use (see fetch_debian).

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import fetch_debian
from fetch_debian import APT_QUIETLY, Unavailable, run

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".lifeboat" / "tools"
RESTIC = TOOLS / "bin" / "restic"

NEEDED = (0, 17)  # `restore --overwrite always --delete`, exit codes 10 to 12

INSTALL_IT_YOURSELF = """\
Install restic {needed} or newer so that it is on PATH, and run this again:
  macOS                      brew install restic
  Debian 13, Ubuntu 25.04    apt-get install restic      (older releases are too old)
  Fedora                     dnf install restic
  Arch                       pacman -S restic
  Alpine                     apk add restic
  anything else              a binary from the releases of github.com/restic/restic"""


# -- Looking ------------------------------------------------------------------------------------


def version_of(program: str | Path) -> tuple[int, ...] | None:
    """Return restic's version as numbers, None if it does not run or does not say."""
    try:
        answer = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"restic (\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(number or 0) for number in found.groups()) if found else None


def find() -> Path | None:
    """Return a restic that is new enough: the one fetched before, else the one on PATH."""
    on_path = shutil.which("restic")
    for program in (RESTIC, Path(on_path) if on_path else None):
        if program and program.exists() and (version_of(program) or (0,)) >= NEEDED:
            return program
    return None


def ways() -> list[str]:
    """Return the package managers of this machine that restic may come from."""
    return [
        name
        for name, programs in {
            "Homebrew": ("brew",),
            "apt": fetch_debian.NEEDED_PROGRAMS,
        }.items()
        if all(map(shutil.which, programs))
    ]


def how_to_install() -> str:
    return INSTALL_IT_YOURSELF.format(needed=dotted(NEEDED))


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# -- Fetching -----------------------------------------------------------------------------------


def fetch() -> Path:
    """Fetch a restic that is new enough and return where it is.

    Raise Unavailable, with what was tried and what to install, and nothing half done, if there
    is no way to one.
    """
    tried = []
    for name, way in {"Homebrew": from_homebrew, "apt": from_apt}.items():
        if name not in ways():
            tried.append(f"{name}: not on this machine")
            continue
        try:
            return way()
        except Unavailable as reason:
            tried.append(f"{name}: {reason}")
    lines = ["No restic that is new enough could be found or fetched.", *tried, how_to_install()]
    raise Unavailable("\n".join(lines))


def from_homebrew() -> Path:
    run("brew", "install", "--quiet", "restic")
    prefix = run("brew", "--prefix").strip()
    restic = Path(prefix, "bin", "restic")
    if (version_of(restic) or (0,)) < NEEDED:
        raise Unavailable("its restic is too old or does not run")
    return restic


def from_apt() -> Path:
    TOOLS.mkdir(parents=True, exist_ok=True)
    fetch_debian.remove_leftovers(TOOLS)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=TOOLS) as name:
        directory = Path(name)
        package = package_from_own_sources(directory) or fetch_debian.from_stable(
            "restic", directory
        )
        run("dpkg-deb", "-x", package, directory / "package")
        restic = directory / "package" / "usr" / "bin" / "restic"
        version = version_of(restic)
        if version is None:
            raise Unavailable(f"{package.name} does not run on this machine")
        if version < NEEDED:
            raise Unavailable(f"{package.name} is too old")
        RESTIC.parent.mkdir(exist_ok=True)
        os.replace(restic, RESTIC)  # whole or not at all
    return RESTIC


def package_from_own_sources(directory: Path) -> Path | None:
    """Return the package that this machine would install, None if it has none or an old one."""
    policy = run("apt-cache", "policy", "restic")
    candidate = re.search(r"Candidate: (?:\d+:)?(\d+)\.(\d+)", policy)
    if not candidate or tuple(map(int, candidate.groups())) < NEEDED:
        return None
    try:
        run("apt-get", *APT_QUIETLY, "download", "restic", cwd=directory)
    except Unavailable:
        return None  # its lists are older than its mirror; Debian stable is fetched with new ones
    return next(directory.glob("restic_*.deb"))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its folder is removed
    restic = find()
    if restic is None:
        try:
            restic = fetch()
        except Unavailable as reason:
            print(reason, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    print(f"restic {dotted(version_of(restic) or ())}: {restic}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
