"""Waiting for a new machine: what ends it, and that a look which fails never ends a recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError
from lifeboat.core.provision import LOG, Machine, Report, State, last_mark
from tasks import provision

LAUNCHED = datetime(2026, 1, 31, 3, 0, tzinfo=timezone.utc)
MACHINE = Machine(id="i-1", region="eu-central-1", group="sg-1", launched_at=LAUNCHED)
BEGAN = "[   41.2] cloud-init[812]: lifeboat-recovery 2026-01-31T03:01:00Z BEGAN.\r\n"
FAILED = (
    "lifeboat-recovery 2026-01-31T03:03:00Z FAILED at installing packages, exit code 100.\n"
    "[  180.2] cloud-init[812]: Failed running runcmd\nmachine login: \n" + "\n" * 20
)
EXPIRED = PreconditionError("The session has expired.", hint="Look at --aws-profile.")


def report(state: State, *, minute: float, **told: Any) -> Report:
    at = LAUNCHED + timedelta(minutes=minute)
    return Report(
        incident="fire", host="x", run="r", state=state, at=at, **{"step": "replay", **told}
    )


class World:
    """A bucket, a machine and its console; each look takes one second of a clock of its own.

    `looks` says what a look sees, or raises.
    """

    def __init__(self, looks: Iterator[Report | RecoveryError | None], printed: str = "") -> None:
        self.looks, self.console = looks, printed
        self.now, self.ended, self.asked_for_hosts = 0.0, False, 0
        self.incident, self.ec2 = "fire", SimpleNamespace(wait_seconds=1000.0)
        self.bucket = self
        self.state = "running"

    # the bucket
    def exists(self, _key: str) -> bool:
        self.seen = next(self.looks)
        if isinstance(self.seen, RecoveryError):
            raise self.seen
        return self.seen is not None

    def get(self, _key: str) -> bytes:
        return self.seen.model_dump_json().encode()  # type: ignore[union-attr]

    # the machine
    @property
    def hosts(self) -> World:
        self.asked_for_hosts += 1
        return self

    def state_of(self, _machine: Machine) -> str:
        return self.state

    def printed(self, _machine: Machine) -> str:
        return self.console

    def end(self, _machine: Machine) -> None:
        self.ended = True


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    def wait(world: World) -> Report:
        def sleep(seconds: float) -> None:
            world.now += seconds

        clock = SimpleNamespace(monotonic=lambda: world.now, sleep=sleep)
        monkeypatch.setattr(provision, "time", clock)
        wanted: Any = world
        return provision.wait_until_recovered(wanted, MACHINE, request)

    request: Any = SimpleNamespace(on_failure="end")
    return wait


def always(seen: Report | RecoveryError | None) -> Iterator[Report | RecoveryError | None]:
    while True:
        yield seen


@pytest.mark.parametrize(
    "error",
    [EXPIRED, TransientError("It does not answer."), PermanentError("RequestTimeTooSkewed")],
)
def test_a_machine_that_can_not_be_looked_at_is_never_ended(wait, error) -> None:
    world = World(always(error))
    with pytest.raises(PermanentError, match="not touched, and may be recovering") as caught:
        wait(world)
    assert not world.ended
    assert type(caught.value) is PermanentError
    assert provision._BLIND_SECONDS < world.now < world.ec2.wait_seconds
    for words in (error.message, "terminate-instances --instance-ids i-1", "--incident", LOG):
        assert words in str(caught.value)


def test_looks_that_fail_for_a_while_are_told_once_and_tried_again(wait, caplog) -> None:
    def looks() -> Iterator[Report | RecoveryError | None]:
        yield from [EXPIRED] * 100
        yield report(State.WORKING, minute=5)
        yield from [EXPIRED] * 100
        yield report(State.DONE, minute=9, checks_passed=18, checks_total=18)

    world = World(looks())
    world.ec2.wait_seconds = 5000.0
    assert wait(world).state is State.DONE
    assert caplog.text.count("session has expired. Look at --aws-profile. It is asked again") == 2
    assert world.asked_for_hosts > 100, "the credentials may be new by now"


def test_even_at_the_deadline_what_can_not_be_seen_is_not_ended(wait) -> None:
    world = World(iter([None] * 190 + [EXPIRED] * 100))
    with pytest.raises(PermanentError, match="not touched"):
        wait(world)
    assert not world.ended
    assert world.now <= world.ec2.wait_seconds + 2 * provision._POLL_SECONDS


def test_a_report_that_is_none_is_a_look_that_failed(wait, monkeypatch) -> None:
    world = World(always(report(State.WORKING, minute=5)))
    monkeypatch.setattr(world, "get", lambda _: b"<html>")
    with pytest.raises(PermanentError, match=r"it is no report.*not touched"):
        wait(world)
    assert not world.ended


def test_a_script_that_ends_before_it_can_report_is_told_within_a_minute(wait) -> None:
    world = World(always(None), printed=BEGAN)

    def looks() -> Iterator[None]:
        for _ in range(10):
            yield None
        world.console += FAILED
        yield from always(None)

    world.looks = looks()
    with pytest.raises(
        PermanentError, match="its script ended at installing packages, exit code 100.*ended, as"
    ):
        wait(world)
    assert world.now < 10 * provision._POLL_SECONDS + 60
    assert world.ended


def test_what_the_recovery_says_itself_is_told_before_what_its_script_says(wait) -> None:
    failed = report(State.FAILED, minute=2.9, error="the disk is full")
    with pytest.raises(PermanentError, match="the disk is full"):
        wait(World(always(failed), printed=BEGAN + FAILED))


def test_a_recovery_that_was_killed_reports_no_more_but_its_script_does(wait) -> None:
    killed = report(State.WORKING, minute=3.01)  # within the second of the mark
    with pytest.raises(PermanentError, match="its script ended at installing packages"):
        wait(World(always(killed), printed=BEGAN + FAILED))


@pytest.mark.parametrize(
    ("console", "first"),
    [
        (BEGAN + FAILED, report(State.WORKING, minute=20)),
        (BEGAN + FAILED + BEGAN.replace("03:01", "03:19"), None),
        (
            BEGAN + FAILED + BEGAN.replace("03:01", "03:19"),
            report(State.FAILED, minute=3, error="the disk is full"),
        ),
    ],
)
def test_what_failed_before_somebody_began_it_anew_ends_nothing(wait, console, first) -> None:
    done = report(State.DONE, minute=30, checks_passed=18, checks_total=18)
    world = World(iter([first] * 20 + [done]), printed=console)
    assert wait(world) == done
    assert not world.ended


def test_a_machine_that_takes_too_long_is_ended_with_its_last_words(wait) -> None:
    words = "\n".join(f"line {number}" for number in range(100))
    with pytest.raises(PermanentError, match=r"(?s)within 1000 s.*printed last: line 88\n.*ended"):
        wait(World(always(None), printed=words))


def test_a_machine_that_is_gone_is_told(wait) -> None:
    world = World(always(None))
    world.state = "stopped"
    with pytest.raises(PermanentError, match="it is stopped"):
        wait(world)
    assert world.ended


def test_a_console_without_a_mark_says_nothing() -> None:
    assert last_mark("") is None
    assert last_mark('+ echo "lifeboat-recovery $(date -u +%FT%TZ) $*"\nBEGAN.') is None
    mark = last_mark(BEGAN)
    assert mark and (mark.at, mark.failed) == (LAUNCHED + timedelta(minutes=1), "")
