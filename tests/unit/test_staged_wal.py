"""WAL on its way into a base copy: what was fetched for it moves, what the vault has is copied."""

from __future__ import annotations

import os
from pathlib import Path

from lifeboat.tools import postgres

FETCHED, KEPT, CARRIED = (f"00000001000000000000000{n}" for n in (1, 2, 3))
HISTORY = "00000002.history"
LONG_AGO = 1_600_000_000


def test_what_was_fetched_is_moved_and_what_the_vault_has_stays(tmp_path: Path) -> None:
    base, scratch, vault = (tmp_path / name for name in ("base", "base.wal", "vault"))
    for directory in (base / "pg_wal", scratch, vault):
        directory.mkdir(parents=True)
    carried = base / "pg_wal" / CARRIED
    carried.write_bytes(b"up to the end of the backup")
    fetched, newest = scratch / FETCHED, scratch / f"{CARRIED}.partial"
    history, kept = scratch / HISTORY, vault / KEPT
    for path in (fetched, newest, history, kept):
        path.write_text(f"all of {path.name}")
        os.utime(path, (LONG_AGO, LONG_AGO))

    postgres.stage_recovery(
        base,
        segments={FETCHED: fetched, KEPT: kept, CARRIED: newest},
        histories={HISTORY: history},
        target_time=None,
        target_timeline=2,
        scratch=scratch,
    )

    staged = {path.name: path.read_text() for path in (base / "pg_wal").iterdir()}
    assert staged == {
        FETCHED: f"all of {FETCHED}",
        KEPT: f"all of {KEPT}",
        CARRIED: f"all of {CARRIED}.partial",
        HISTORY: f"all of {HISTORY}",
    }
    assert kept.exists(), "the vault's own is copied"
    assert not (base / "pg_wal" / KEPT).samefile(kept), "the server writes into old segments"
    assert not list(scratch.iterdir()), "what was fetched takes no room twice"
    times = {path.stat().st_mtime for path in (base / "pg_wal").iterdir()}
    assert times == {LONG_AGO}, "a history's time says when its timeline began"


def test_without_a_scratch_directory_all_is_copied(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    segment = tmp_path / FETCHED
    segment.write_bytes(b"a segment")
    postgres.stage_recovery(
        base, segments={FETCHED: segment}, histories={}, target_time=None, target_timeline=1
    )
    assert segment.exists()
    assert (base / "pg_wal" / FETCHED).read_bytes() == b"a segment"
