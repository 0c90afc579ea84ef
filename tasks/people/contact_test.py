"""The communication test: a message by every channel of every person, and who says that it came.

On record in `records/communication-tests/`, one file of JSON lines for each test, in both tiers.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from lifeboat.core.communication import EXTERNAL, INTERNAL
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.review_evidence import MessageTest
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, messages
from tasks import clock, many, places
from tasks.orchestration import step
from tasks.people import communication

log = logging.getLogger("lifeboat")

_TAKEN = "taken"


@step()
def send(settings: Settings, *, customers_too: bool = False) -> MessageTest:
    """Send a message, marked as a test, by every channel of every person; keep who took it.

    Raises PreconditionError if lifeboat.yaml names nobody with a channel.
    """
    audiences = (*INTERNAL, *(EXTERNAL if customers_too else ()))
    ways = [
        (to, channel)
        for audience in audiences
        for _, to, channels in communication.receivers(settings, audience)
        for channel in channels
    ]
    if not ways:
        raise PreconditionError(
            "Testing the way to people: lifeboat.yaml names nobody with a channel.",
            hint="Set people and their channels; docs/incidents.md has an example.",
        )
    at = clock.now()
    persons = {p.name for persons in settings.people.by_role.values() for p in persons}

    def try_one(way: tuple[str, Any]) -> tuple[str, str]:
        to, channel = way
        answer = f'\n\nSay that it came: lifeboat incident received "{to}"\nor, in Prefect, run '
        answer += f"{settings.platform}.test-communication with `received`."
        text = messages.Text(
            title=f"[TEST] {settings.platform}: does this reach you?",
            body="This is a test of the ways to people. Nothing has happened."
            + (answer if to in persons else ""),
            template="",
        )
        why = communication.send_by(settings, channel, to=to, text=text, alarm=False)
        return f"{to} by {channel.name}", why or _TAKEN

    # Two roles of one person are one person.
    once = {(to, channel.name, channel.url): (to, channel) for to, channel in ways}
    taken = dict(many.act_on_all(list(once.values()), try_one, doing="Testing the way to people"))
    told = sorted({to for to, _ in ways if to in persons})
    _add(settings, f"{at:%Y%m%dT%H%M%SZ}", event="sent", at=at, channels=taken, told=told)
    found = newest(settings)
    assert found
    return found


@step()
def received(settings: Settings, name: str) -> MessageTest:
    """Keep that somebody has read the newest test message.

    Raises PreconditionError if there was no test, or if it was not sent to anybody of that name.
    """
    test, found = _newest_name(settings), newest(settings)
    if test is None or found is None:
        raise PreconditionError(
            "Saying that a test message came: none was sent.",
            hint="`lifeboat incident test` sends one.",
        )
    told = (*found.acknowledged, *found.silent)
    who = next((one for one in told if one.casefold() == name.strip().casefold()), None)
    if who is None:
        raise PreconditionError(
            f"Saying that a test message came: it was not sent to {name.strip()!r}.",
            hint=f"It was sent to {', '.join(told)}.",
        )
    if who not in found.acknowledged:
        _add(settings, test, event="received", at=clock.now(), by=who)
    return newest(settings) or found


def newest(settings: Settings) -> MessageTest | None:
    """The newest test and who has read it; None: there was none."""
    name = _newest_name(settings)
    return _add_up(_lines(settings, name)) if name else None


def _add_up(lines: list[str]) -> MessageTest | None:
    sent: dict[str, Any] | None = None
    came: dict[str, None] = {}
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue  # a crash cut it off
        if told.get("event") == "sent":
            sent = told
        elif told.get("event") == "received":
            came[told["by"]] = None
    if sent is None:
        return None
    return MessageTest(
        at=datetime.fromisoformat(sent["at"]),
        channels=sent["channels"],
        acknowledged=tuple(came),
        silent=tuple(one for one in sent["told"] if one not in came),
    )


# --- kept -------------------------------------------------------------------------------------


def _directory(settings: Settings) -> Path:
    return places.records_directory(settings) / "communication-tests"


def _newest_name(settings: Settings) -> str | None:
    return max((path.stem for path in _directory(settings).glob("*.jsonl")), default=None)


def _lines(settings: Settings, name: str) -> list[str]:
    return (_directory(settings) / f"{name}.jsonl").read_text().splitlines()


def _add(settings: Settings, name: str, *, at: datetime, **told: Any) -> None:
    path = _directory(settings) / f"{name}.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.append_line_durably(path, json.dumps({"at": at.isoformat(), **told}))
    except OSError as error:
        raise PreconditionError(
            f"Keeping the communication test in {path}: {error.strerror}.",
            hint="Look whether the vault's disk is mounted and has room.",
        ) from error
    try:
        places.bucket(settings).put(f"records/communication-tests/{path.name}", path.read_bytes())
    except RecoveryError as error:
        log.warning("The communication test is only on this host: %s", error)
