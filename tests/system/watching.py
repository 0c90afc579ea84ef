"""A platform to be watched, and the ways to harm it and its vault for a moment."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from lifeboat.core.checks import Status
from lifeboat.core.objectives import Report
from lifeboat.core.requests import WatchObjectives
from lifeboat.settings import Settings
from lifeboat.tools import s3
from staging.site import Site
from tasks import objectives, places

PREFIX = "watched"
SLOW = "{wal_seconds: 3600, files_seconds: 3600, on_change_seconds: 3600, watch_seconds: 3600}"
FOREIGN = "7999999999999999999"
UNKNOWN_BRANCH = "000000070000000000000005"


@dataclasses.dataclass
class Watched:
    """A protected platform, and an operator's shell beside it."""

    site: Site
    settings: Settings
    outside: Path

    @property
    def vault(self) -> Path:
        return self.settings.vault.local

    @property
    def bucket(self) -> s3.Bucket:
        return places.bucket(self.settings)

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        known = {"LIFEBOAT_CONFIG": str(self.site.settings_path), **self.site.environment()}
        return subprocess.Popen(
            [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
            env={**kept, **known, **environment},
            cwd=self.outside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, ok: int = 0, **environment: str) -> str:
        child = self.start(*words, **environment)
        out, error = child.communicate(timeout=240)
        assert child.returncode == ok, f"{words}: exit {child.returncode}\n{error}\n{out}"
        for secret in self.site.environment().values():
            assert secret not in out + error
        return out

    def look(self) -> Report:
        return objectives.look_from_host(self.settings)

    def look_from_s3(self) -> Report:
        told = self.settings.vault.s3
        return objectives.look_from_bucket(
            WatchObjectives(
                source="s3", bucket=told.bucket, endpoint=told.endpoint or "", prefix=told.prefix
            )
        )

    def from_s3(self) -> tuple[str, ...]:
        told = self.settings.vault.s3
        where = ("--bucket", told.bucket, "--endpoint", told.endpoint or "", "--prefix", PREFIX)
        return ("watch", "--from", "s3", *where)

    def fill_segments(self, count: int) -> None:
        """Let the log go on by some whole segments, and wait until they are received."""
        for _ in range(count):
            with psycopg.connect(self.site.dsn(), autocommit=True) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS watched (n int)")
                connection.execute("INSERT INTO watched VALUES (1)")
            with psycopg.connect(self.site.dsn("lifeboat"), autocommit=True) as connection:
                connection.execute("SELECT pg_switch_wal()")
        wait_for(lambda: len(self.segments()) >= count, "segments are received")

    def segments(self) -> list[Path]:
        found = places.wal_directory(self.settings).glob("*/*/*")
        return sorted(path for path in found if len(path.name) == 24)

    def shipped(self) -> list[Path]:
        """The whole segments of which the bucket has a copy."""
        return [path for path in self.segments() if self.bucket.exists(self.key_of(path))]

    def key_of(self, segment: Path) -> str:
        return places.wal_key(segment.parent.parent.name, segment.name)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(0.2)


def red(report: Report) -> dict[str, Status]:
    return {finding.name: finding.status for finding in report.red}


def told(report: Report, name: str) -> str:
    return next(finding.evidence for finding in report.findings if finding.name == name)


def nothing_red(report: Report) -> None:
    assert report.good, {f.name: (f.status, f.evidence) for f in report.red}


@contextmanager
def without_objects(watched: Watched, *keys: str) -> Iterator[None]:
    kept = {key: watched.bucket.get(key) for key in keys}
    watched.bucket.delete(keys)
    try:
        yield
    finally:
        for key, data in kept.items():
            watched.bucket.put(key, data)


@contextmanager
def with_object(watched: Watched, key: str, data: bytes) -> Iterator[None]:
    before = watched.bucket.get(key) if watched.bucket.exists(key) else None
    watched.bucket.put(key, data)
    try:
        yield
    finally:
        if before is None:
            watched.bucket.delete([key])
        else:
            watched.bucket.put(key, before)


@contextmanager
def without_file(path: Path) -> Iterator[None]:
    aside = path.with_name(path.name + ".test-aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def with_file(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def keys_below(watched: Watched, prefix: str) -> list[str]:
    return [item.key for item in watched.bucket.list(prefix)]


def hot_file(watched: Watched) -> Path:
    [hot] = places.hot_directory(watched.settings).iterdir()
    return next(path for path in sorted((hot / "base/base").rglob("*")) if path.name == "1259")


@contextmanager
def wrong_password(watched: Watched) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIFEBOAT_VAULT_PASSWORD", "not-the-password")
        yield


@contextmanager
def stale_listings(watched: Watched) -> Iterator[None]:
    """The bucket answers every listing as it was a moment ago."""
    before = watched.bucket.list()

    def list_(self, prefix: str = "", **how: object) -> tuple[s3.Object, ...]:
        return tuple(item for item in before if item.key.startswith(prefix))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3.Bucket, "list", list_)
        yield


@contextmanager
def no_receiver(watched: Watched) -> Iterator[None]:
    watched.site.stack.stop(["wal-receiver"])
    try:
        yield
    finally:
        watched.site.stack.start(["wal-receiver"])
        wait_for(lambda: "wal-receiver" not in red(watched.look()), "the receiver streams again")


@contextmanager
def interrupted_recovery(watched: Watched) -> Iterator[None]:
    journal = places.runs_directory(watched.settings) / "recover-files-20260101T000000Z-dead"
    line = {
        "at": time.time(),
        "event": "run-began",
        "procedure": "recover-files",
        "pid": 2**22 + 1,
        "host": socket.gethostname(),
    }
    with with_file(journal / "journal.jsonl", json.dumps(line).encode()):
        yield
    journal.rmdir()


@contextmanager
def a_new_store(watched: Watched) -> Iterator[None]:
    place = watched.site.server / "data/wiki"
    place.mkdir()
    try:
        yield
    finally:
        place.rmdir()
