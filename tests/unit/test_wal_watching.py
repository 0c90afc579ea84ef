"""When a WAL receiver hangs, and what is an alarm of the receiver and its slot."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lifeboat.core.errors import TransientError
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import postgres, process
from tasks.wal import wal_health, wal_receiver
from tasks.wal.wal_health import ReceiverState
from tasks.wal.wal_receiver import PATIENCE_SECONDS, Vigil
from tests.unit.smallest_settings import SMALLEST

MB = 1 << 20


def receiver(
    written: int | None = 100, *, behind: int = 0, replied_at: float | None = 1.0, **more
) -> postgres.Receiver:
    told = {"state": "streaming", "synchronous": False, "lag_seconds": 0.0}
    return postgres.Receiver(
        **{**told, **more}, written_lsn=written, lag_bytes=behind, replied_at=replied_at
    )


def judged(vigil: Vigil, seen: list[postgres.Receiver | None]) -> str:
    """What the vigil says in the end, having looked every two seconds."""
    return [vigil.judge(one, at=2.0 * place) for place, one in enumerate(seen)][-1]


LONG = int(PATIENCE_SECONDS)  # twice the patience, at a look every two seconds


def test_one_that_replies_and_has_all_is_well_however_long_nothing_comes() -> None:
    idle = [receiver(replied_at=float(n)) for n in range(10 * LONG)]
    assert judged(Vigil(), idle) == ""


def test_one_that_goes_on_is_well_however_far_behind_it_is() -> None:
    busy = [receiver(n, behind=1 << 30, replied_at=float(n)) for n in range(10 * LONG)]
    assert judged(Vigil(), busy) == ""


def test_one_that_does_not_reply_hangs() -> None:
    """As one that was stopped does: connected, and silent."""
    assert "has not replied" in judged(Vigil(), [receiver()] * LONG)
    assert judged(Vigil(), [receiver()] * 2) == "", "not at once"


def test_one_that_replies_and_writes_nothing_hangs_only_if_there_is_something() -> None:
    stuck = [receiver(behind=50, replied_at=float(n)) for n in range(LONG)]
    assert "written nothing" in judged(Vigil(), stuck)
    never = [receiver(None, behind=50, replied_at=float(n)) for n in range(LONG)]
    assert "written nothing" in judged(Vigil(), never)


def test_one_whose_connection_is_gone_hangs() -> None:
    assert "not connected" in judged(Vigil(), [receiver(), *[None] * LONG])
    assert "not connected" in judged(Vigil(), [None] * LONG)


# --- health ---------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LIFEBOAT_DATABASE_PASSWORD", "x")
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    return load_settings(tmp_path / "lifeboat.yaml")


def look(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    of: postgres.Receiver | None,
    slot: postgres.Slot | None,
    cap_bytes: int | None = 1000 * MB,
) -> wal_health.WalHealth:
    identity = postgres.Identity("77", 1, "18.6", 180006, 16 * MB, False)
    for name, answer in {
        "identify": identity,
        "receiver_of": of,
        "slot_of": slot,
        "slot_cap_bytes": cap_bytes,
    }.items():
        monkeypatch.setattr(wal_health.postgres, name, lambda *_, answer=answer: answer)
    return wal_health.look(settings)


def slot(kept: int = 16 * MB, status: str = "reserved") -> postgres.Slot:
    return postgres.Slot(wal_status=status, in_use=True, restart_lsn=1, kept_bytes=kept)


def test_a_receiver_that_streams_is_no_alarm(settings, monkeypatch) -> None:
    found = look(settings, monkeypatch, of=receiver(replied_at=time.time()), slot=slot())
    assert found.findings == ()
    assert (found.receiver, found.slot) == (ReceiverState.STREAMING, "reserved")
    assert found.used_percent == pytest.approx(1.6)
    behind = receiver(replied_at=time.time(), state="catchup", behind=5, lag_seconds=3.0)
    found = look(settings, monkeypatch, of=behind, slot=slot())
    assert (found.receiver, found.lag_bytes, found.lag_seconds) == (
        ReceiverState.CATCHING_UP,
        5,
        3.0,
    )


@pytest.mark.parametrize(
    ("of", "slots", "cap_bytes", "names"),
    [
        (None, slot(), 1000 * MB, ["receiver-dead"]),
        (None, None, 1000 * MB, ["receiver-dead"]),
        (receiver(replied_at=1.0, behind=7), slot(), 1000 * MB, ["receiver-hangs"]),
        (receiver(replied_at=None), slot(), None, ["slot-without-limit"]),
        (receiver(replied_at=None), slot(kept=499 * MB), 1000 * MB, []),
        (receiver(replied_at=None), slot(kept=500 * MB), 1000 * MB, ["slot-filling"]),
        (None, slot(kept=900 * MB, status="unreserved"), 8000 * MB, ["slot-filling"]),
        (None, slot(status="lost"), 1000 * MB, ["slot-lost", "receiver-dead"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_an_alarm(settings, monkeypatch, of, slots, cap_bytes, names) -> None:
    found = look(settings, monkeypatch, of=of, slot=slots, cap_bytes=cap_bytes)
    seen = [finding.name for finding in found.findings]
    assert seen[: len(names)] == names
    assert all(finding.sentence and finding.hint for finding in found.findings)


def test_the_limit_of_the_slot_is_told_in_figures(settings, monkeypatch) -> None:
    found = look(settings, monkeypatch, of=receiver(), slot=slot(kept=600 * MB))
    [sentence] = [f.sentence for f in found.findings if f.name == "slot-filling"]
    assert "600 MB of WAL wait" in sentence
    assert "60 % of max_slot_wal_keep_size (1000 MB)" in sentence


def test_a_database_that_does_not_answer_is_a_finding(settings, monkeypatch) -> None:
    def dead(server):
        raise TransientError("Asking the database: it does not answer.", hint="Is it running?")

    monkeypatch.setattr(wal_health.postgres, "identify", dead)
    found = wal_health.look(settings)
    assert found.receiver is ReceiverState.UNKNOWN
    assert [finding.name for finding in found.findings] == ["database"]


# --- where the receiver writes --------------------------------------------------------------


def test_behind_a_hole_the_receiver_begins_in_a_directory_of_its_own(settings, monkeypatch) -> None:
    identity = postgres.Identity("77", 1, "18.6", 180006, 16 * MB, False)
    first = wal_receiver.receiver_directory(settings, identity)
    assert first.name == "00000001"
    first.mkdir(parents=True)
    (first / "000000010000000000000007.partial").touch()
    (first / "000000010000000000000006").touch()

    def is_left_behind_by(number: int) -> bool:
        at = number * 16 * MB
        monkeypatch.setattr(wal_receiver.postgres, "slot_restart_lsn", lambda *_: at)
        return wal_receiver._is_left_behind(None, first, 16 * MB)

    assert [is_left_behind_by(number) for number in (7, 8, 30)] == [False, True, True]
    (first / "000000010000000000000007.partial").rename(first / "000000010000000000000007")
    assert [is_left_behind_by(number) for number in (7, 8, 9)] == [False, False, True]
    for expected in ("00000001-2", "00000001-3"):
        known = wal_receiver._directories(settings, identity)
        anew = wal_receiver._begin_anew(known[-1], known)
        assert anew.name == expected
        assert not wal_receiver._is_left_behind(None, anew, 16 * MB), (
            "an empty one goes by the slot"
        )
        anew.mkdir()
        assert wal_receiver.receiver_directory(settings, identity) == anew


def test_a_program_is_ended_as_soon_as_the_one_who_looks_says_so() -> None:
    began = time.monotonic()

    def look() -> None:
        if time.monotonic() - began > 0.3:
            raise TransientError("It hangs.")

    with pytest.raises(TransientError, match="It hangs"):
        process.run(["sleep", "60"], doing="Waiting", on_look=look)
    assert time.monotonic() - began < 10
