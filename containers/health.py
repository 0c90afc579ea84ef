"""Whether a container of Lifeboat's is well, for its health check: exit 0, or 1 and the reason.

    python3 health.py runs WORD             a process of this container has this word in its command
    python3 health.py server                the API answers its password, and refuses everybody else
    python3 health.py worker POOL NAME      the server has heard of this worker a moment ago
    python3 health.py staging               the staging platform answers

Standard library only: it runs every few seconds, and Lifeboat takes a second to import.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from passwords import read_passwords

# A worker tells of itself every 30 s.
_HEARD_OF_SECONDS = 75


class Unwell(Exception):
    """What is wrong, in a sentence."""


def runs(word: str) -> None:
    """Raise Unwell if no process of this container has the word, or its path, in its command.

    Its numbers are the host's: what is of this container has its mounts.
    """
    ours = os.readlink("/proc/self/ns/mnt")
    for directory in Path("/proc").glob("[0-9]*"):
        if int(directory.name) == os.getpid():
            continue
        try:
            words = os.fsdecode((directory / "cmdline").read_bytes()).split("\0")
            if os.readlink(directory / "ns/mnt") == ours and word in {
                Path(word).name for word in words
            }:
                return
        except OSError:
            continue  # it ended meanwhile
    raise Unwell(f"no {word} runs")


def server() -> None:
    """Raise Unwell unless the API lets the password in, and nobody else."""
    if (answer := _status("/api/flows/count", password="")) != 401:
        raise Unwell(f"without a password the API answers {answer}, not 401")
    if (answer := _status("/api/flows/count")) != 200:
        raise Unwell(f"with its password the API answers {answer}")


def worker(pool: str, name: str) -> None:
    """Raise Unwell unless the server has heard of the worker a moment ago."""
    found = json.loads(_ask(f"/api/work_pools/{pool}/workers/filter"))
    heard = [told["last_heartbeat_time"] for told in found if told["name"] == name]
    if not heard:
        raise Unwell(f"the server has not heard of {name}")
    since = datetime.now(timezone.utc) - datetime.fromisoformat(heard[0].replace("Z", "+00:00"))
    if since > timedelta(seconds=_HEARD_OF_SECONDS):
        raise Unwell(f"the server has not heard of {name} for {since.total_seconds():.0f} s")


def staging() -> None:
    """Raise Unwell unless the staging platform was made to the end, and answers."""
    outside = Path(os.environ["LIFEBOAT_MOUNT"], "outside")
    if not (outside / "facts.json").exists():
        raise Unwell("it is being made")
    port = json.loads((outside / "ports.json").read_text(encoding="utf-8"))["backend"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
        pass


def _status(path: str, password: str | None = None) -> int:
    try:
        _ask(path, password)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def _ask(path: str, password: str | None = None) -> bytes:
    if password is None:
        password = read_passwords()["PREFECT_API_AUTH_STRING"]
    where = os.environ["PREFECT_API_URL"].removesuffix("/api") + path
    request = urllib.request.Request(where, data=b"{}", method="POST")
    request.add_header("Content-Type", "application/json")
    if password:
        shown = base64.b64encode(password.encode()).decode()
        request.add_header("Authorization", f"Basic {shown}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read()


def main() -> int:
    what, *more = sys.argv[1:]
    try:
        {"runs": runs, "server": server, "worker": worker, "staging": staging}[what](*more)
    except (Unwell, OSError, ValueError, KeyError) as reason:
        print(reason)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
