"""The load generator: keeps writing, and remembers outside the platform what was acknowledged.

    python -m staging.load --site .lifeboat/staging --record outside.jsonl --rate 5

The record is JSON Lines, each synced to disk before the next request: {kind: row|file, id, name,
sha256, acknowledged_at}, and {kind: outage, from, to, attempts, error} for each time it was down.
What counts as lost is judged against this record and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psycopg

from staging.compose_site import site_at
from staging.seed import make_drawing
from staging.site import DEFAULT_ROOT, Site

KINDS_OF_FILES = ("step", "stl")
"""No DXF: its library takes seconds to load, and a drill's load should begin at once."""


@dataclass(frozen=True)
class Acknowledged:
    """One write that the platform said it had taken."""

    kind: str
    """`row` (a project) or `file` (a drawing: a row and its content)."""
    id: int
    name: str
    sha256: str
    acknowledged_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Losses:
    """What of the acknowledged is not there, or not as it was."""

    acknowledged_rows: int
    acknowledged_files: int
    rows_lost: int
    files_lost: int
    names: tuple[str, ...]
    """Of everything lost, in the order of acknowledgement."""
    oldest_lost_at: float | None
    newest_kept_at: float | None
    newest_acknowledged_at: float | None

    @property
    def any(self) -> bool:
        return self.rows_lost + self.files_lost > 0


def read_record(record: Path) -> tuple[Acknowledged, ...]:
    """Read what was acknowledged; a last line that is cut short was never synced, so it is left."""
    found = []
    for line in record.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["kind"] in ("row", "file"):
            found.append(Acknowledged(**entry))
    return tuple(found)


def count_losses(
    acknowledged: Iterable[Acknowledged],
    *,
    rows: Mapping[int, str],
    files: Mapping[int, str],
) -> Losses:
    """Compare what was acknowledged with what is there.

    `rows`: project id to name. `files`: drawing id to the SHA-256 of the content that is really
    there. Ids alone prove nothing: after a set-back the platform gives them out again.
    """
    acknowledged = sorted(acknowledged, key=lambda entry: entry.acknowledged_at)
    kept, lost = [], []
    for entry in acknowledged:
        is_row = entry.kind == "row"
        there = rows.get(entry.id) == entry.name if is_row else files.get(entry.id) == entry.sha256
        (kept if there else lost).append(entry)
    return Losses(
        acknowledged_rows=sum(entry.kind == "row" for entry in acknowledged),
        acknowledged_files=sum(entry.kind == "file" for entry in acknowledged),
        rows_lost=sum(entry.kind == "row" for entry in lost),
        files_lost=sum(entry.kind == "file" for entry in lost),
        names=tuple(entry.name for entry in lost),
        oldest_lost_at=lost[0].acknowledged_at if lost else None,
        newest_kept_at=kept[-1].acknowledged_at if kept else None,
        newest_acknowledged_at=acknowledged[-1].acknowledged_at if acknowledged else None,
    )


def compare(
    record: Path, *, dsn: str, files: Path, until: float | None = None, since: float = 0.0
) -> Losses:
    """Count what of the record is lost, from the database and from every file's bytes on disk.

    Only what was acknowledged from `since` up to `until` (seconds since the epoch) counts.
    Raises psycopg.Error if the database cannot be asked: that is no count of losses.
    """
    entries = [
        entry
        for entry in read_record(record)
        if since <= entry.acknowledged_at <= (until if until is not None else float("inf"))
    ]
    row_ids = [entry.id for entry in entries if entry.kind == "row"]
    file_ids = [entry.id for entry in entries if entry.kind == "file"]
    with psycopg.connect(dsn) as connection:
        rows = dict(
            connection.execute("SELECT id, name FROM projects WHERE id = ANY(%s)", [row_ids])
        )
        drawings = connection.execute(
            "SELECT id, name, path FROM drawings WHERE id = ANY(%s)", [file_ids]
        ).fetchall()
    names = {entry.id: entry.name for entry in entries if entry.kind == "file"}
    # Duplicates share their content, and it is read once.
    paths = {path for drawing_id, name, path in drawings if names[drawing_id] == name}
    digests = {path: _digest(files / path) for path in paths}
    there = {drawing_id: digests.get(path, "") for drawing_id, _, path in drawings}
    return count_losses(entries, rows=rows, files=there)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


class Record:
    """An append-only file of JSON Lines, where a line that was written is a line that stays."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def add(self, entry: Mapping) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Client:
    """The platform's API, as a user's program calls it."""

    def __init__(self, base_url: str, *, email: str, password: str) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=10)
        self._credentials = {"email": email, "password": password}
        self._logged_in = False

    def create_project(self, name: str) -> dict:
        return self.call("POST", "/projects", json={"name": name, "note": "load"})

    def upload(self, name: str, content: bytes) -> dict:
        return self.call("POST", "/files", files={"file": (name, content)})

    def call(self, method: str, path: str, **arguments) -> dict:
        """Log in when needed; raise httpx.HTTPError unless the answer is a 2xx."""
        response = self.request(method, path, **arguments)
        response.raise_for_status()
        return response.json()

    def request(self, method: str, path: str, **arguments) -> httpx.Response:
        if not self._logged_in:
            self._log_in()
        response = self._http.request(method, path, **arguments)
        if response.status_code == 401:
            # The sessions lie in Redis, and a recovery may have lost them.
            self._log_in()
            response = self._http.request(method, path, **arguments)
        return response

    def _log_in(self) -> None:
        self._logged_in = False
        response = self._http.post("/auth/login", json=self._credentials)
        response.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {response.json()['token']}"
        self._logged_in = True


def client_of(site: Site, *, admin: bool = False) -> Client:
    """A client logged in as the engineer, or as the administrator."""
    known, who = site.secrets(), "ADMIN" if admin else "ENGINEER"
    return Client(
        site.base_urls.backend, email=known[f"{who}_EMAIL"], password=known[f"{who}_PASSWORD"]
    )


class Load:
    """Writes rows and files in turn until told to stop; an outage only makes it wait."""

    def __init__(self, client: Client, record: Record, *, rate: float, file_share: float) -> None:
        self._client = client
        self._record = record
        self._pause_seconds = 1 / rate
        self._file_share = file_share
        self._run = uuid.uuid4().hex[:8]
        self._outage: dict | None = None
        self._files = 0
        self.stopped = False

    def run(self, *, stop_file: Path | None = None, seconds: float | None = None) -> None:
        began, number, due = time.monotonic(), 0, 0.0
        while not self.stopped and not (stop_file and stop_file.exists()):
            if seconds is not None and time.monotonic() - began > seconds:
                break
            wants_file = int((number + 1) * self._file_share) > int(number * self._file_share)
            if self._write(number, wants_file):
                number += 1
            # Steady, without trying to catch up after an outage.
            due = max(due + self._pause_seconds, time.monotonic() - self._pause_seconds)
            time.sleep(max(0.0, due - time.monotonic()))
        self._outage_ends()

    def _write(self, number: int, wants_file: bool) -> bool:
        try:
            entry = self._upload() if wants_file else self._create(number)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._outage_goes_on(error)
            return False
        self._outage_ends()
        self._record.add(asdict(entry))
        return True

    def _create(self, number: int) -> Acknowledged:
        name = f"load-{self._run}-{number:06d}"
        made = self._client.create_project(name)
        return Acknowledged("row", made["id"], name, "", time.time())

    def _upload(self) -> Acknowledged:
        # Every tenth content again under another name: the store keeps it once.
        self._files += 1
        same = self._files - 1 if self._files % 10 == 0 else self._files
        kind = KINDS_OF_FILES[same % len(KINDS_OF_FILES)]
        drawing = make_drawing(same, kind, salt=f"{self._run}-")
        name = f"copy-{drawing.name}" if same != self._files else drawing.name
        digest = hashlib.sha256(drawing.content).hexdigest()
        made = self._client.upload(name, drawing.content)
        if made["sha256"] != digest:
            raise ValueError(f"{name} was acknowledged with another SHA-256")
        return Acknowledged("file", made["id"], name, digest, time.time())

    def _outage_goes_on(self, error: Exception) -> None:
        if self._outage is None:
            self._outage = {"kind": "outage", "from": time.time(), "attempts": 0}
        self._outage["attempts"] += 1
        self._outage["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def _outage_ends(self) -> None:
        if self._outage is not None:
            self._record.add({**self._outage, "to": time.time()})
            self._outage = None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m staging.load", description=__doc__)
    parser.add_argument("--site", type=Path, default=DEFAULT_ROOT)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=5.0, help="writes a second")
    parser.add_argument("--file-share", type=float, default=0.4, help="of the writes, 0 to 1")
    parser.add_argument("--seconds", type=float, help="end after so long")
    parser.add_argument("--stop-file", type=Path, help="end once this file is there")
    arguments = parser.parse_args()
    if arguments.rate <= 0 or not 0 <= arguments.file_share <= 1:
        parser.error("--rate must be above 0 and --file-share between 0 and 1")
    # The passwords are read now: later the server, and its settings, may be gone.
    load = Load(
        client_of(site_at(arguments.site)),
        Record(arguments.record),
        rate=arguments.rate,
        file_share=arguments.file_share,
    )

    def stop(*_: object) -> None:
        load.stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    load.run(stop_file=arguments.stop_file, seconds=arguments.seconds)


if __name__ == "__main__":
    main()
