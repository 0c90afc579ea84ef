"""Find Docker Compose v2, or fetch Debian 13's into the project's own tool folder.

In this order: what was fetched before (.lifeboat/tools/bin/docker-compose), the plugin of `docker`,
`docker-compose` on PATH, and the package of Debian's newest stable release. Debian 12's own is the
old Compose v1, which knows neither `up --no-deps` of a built image nor health conditions.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fetch_debian
from fetch_debian import Unavailable

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".lifeboat" / "tools"
COMPOSE = TOOLS / "bin" / "docker-compose"

NEEDED = 2


def version_of(*words: str | Path) -> int | None:
    """Return Compose's major version, None if it does not run or does not say."""
    try:
        answer = subprocess.run(
            [*words, "version", "--short"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"v?(\d+)\.", answer.stdout)
    return int(found[1]) if found else None


def find() -> str | None:
    """Return how Compose v2 is called on this machine, None if there is none."""
    for words in ((COMPOSE,), ("docker", "compose"), ("docker-compose",)):
        if shutil.which(words[0]) and (version_of(*words) or 0) >= NEEDED:
            return " ".join(map(str, words))
    return None


def fetch() -> Path:
    """Fetch Compose v2 and return where it is. Raise Unavailable, and nothing half done."""
    if not all(map(shutil.which, fetch_debian.NEEDED_PROGRAMS)):
        raise Unavailable(
            "No Docker Compose v2 is here, and no apt to fetch it with.\n"
            "Install Docker's package docker-compose-plugin, and run this again."
        )
    TOOLS.mkdir(parents=True, exist_ok=True)
    fetch_debian.remove_leftovers(TOOLS)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=TOOLS) as name:
        directory = Path(name)
        package = fetch_debian.from_stable("docker-compose", directory)
        fetch_debian.run("dpkg-deb", "-x", package, directory / "package")
        program = directory / "package/usr/libexec/docker/cli-plugins/docker-compose"
        if (version_of(program) or 0) < NEEDED:
            raise Unavailable(f"{package.name} does not run on this machine, or is too old")
        COMPOSE.parent.mkdir(exist_ok=True)
        os.replace(program, COMPOSE)  # whole or not at all
    return COMPOSE


def main() -> int:
    try:
        print(find() or fetch())
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
