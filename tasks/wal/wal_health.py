"""How the WAL gets away from the database: the receiver and its slot, as the server sees them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from tasks.database import SLOT, connection
from tasks.wal.wal_receiver import PATIENCE_SECONDS
from tasks.wal.wal_witness import last_sighting

_START_RECEIVER = "Start the service that runs `lifeboat wal receive`, and look at its log."
_RECEIVER_COMES = (
    "It replaces a receiver that hangs by itself; if it does not, restart the service that runs "
    "`lifeboat wal receive`. If commits hang meanwhile: `lifeboat wal asynchronous`."
)


class ReceiverState(StrEnum):
    """What the WAL receiver does."""

    STREAMING = "streaming"
    CATCHING_UP = "catching up"
    HANGS = "hangs"  # connected, and does not reply
    DEAD = "dead"  # not connected
    UNKNOWN = "unknown"  # the database can't be asked


class Finding(BaseModel):
    """Something that is wrong: what, and what to do about it."""

    model_config = ConfigDict(frozen=True)

    name: str
    sentence: str
    hint: str


class WalHealth(BaseModel):
    """Figures, and what of them is an alarm, the worst first."""

    model_config = ConfigDict(frozen=True)

    receiver: ReceiverState
    synchronous: bool = False
    lag_bytes: int = 0  # flushed by the server, and not written by the receiver
    lag_seconds: float = 0.0
    slot: str = (
        "missing"  # or pg_replication_slots.wal_status: reserved, extended, unreserved, lost
    )
    kept_bytes: int = 0  # WAL that the server keeps for the receiver
    cap_bytes: int | None = None  # how much it may keep; None: no limit
    used_percent: float = 0.0
    held_until: datetime | None = None  # what this host last knew S3 to hold
    findings: tuple[Finding, ...] = ()


def look(settings: Settings) -> WalHealth:
    """Ask the database about the receiver and its slot. Never raises for what it finds.

    A database that does not answer is a finding too.
    """
    server = connection(settings)
    try:
        if postgres.identify(server).in_recovery:
            raise PreconditionError("Asking about the WAL: the database is in recovery.")
        receiver, slot = postgres.receiver_of(server, SLOT), postgres.slot_of(server, SLOT)
        cap_bytes = postgres.slot_cap_bytes(server)
    except RecoveryError as error:
        away = Finding(name="database", sentence=error.message, hint=error.hint)
        return WalHealth(
            receiver=ReceiverState.UNKNOWN,
            slot="unknown",
            findings=(away,),
            held_until=_held(settings),
        )
    health = WalHealth(
        receiver=_state_of(receiver),
        synchronous=bool(receiver and receiver.synchronous),
        lag_bytes=receiver.lag_bytes if receiver else 0,
        lag_seconds=_lag_seconds(receiver),
        slot=slot.wal_status if slot else "missing",
        kept_bytes=slot.kept_bytes if slot else 0,
        cap_bytes=cap_bytes,
        used_percent=100 * slot.kept_bytes / cap_bytes if slot and cap_bytes else 0.0,
        held_until=_held(settings),
    )
    found = (*_of_slot(health, settings.watch.slot_percent), *_of_receiver(health))
    return health.model_copy(update={"findings": found})


def _held(settings: Settings) -> datetime | None:
    sighting = last_sighting(settings)
    return sighting.as_of if sighting else None


def _state_of(receiver: postgres.Receiver | None) -> ReceiverState:
    if receiver is None:
        return ReceiverState.DEAD
    if (receiver.silent_seconds or 0) > PATIENCE_SECONDS:
        return ReceiverState.HANGS
    streams = receiver.state == "streaming"
    return ReceiverState.STREAMING if streams else ReceiverState.CATCHING_UP


def _lag_seconds(receiver: postgres.Receiver | None) -> float:
    """The server measures it only while the receiver replies."""
    if receiver is None:
        return 0.0
    silent = receiver.silent_seconds or 0.0
    return max(receiver.lag_seconds, silent if silent > PATIENCE_SECONDS else 0.0)


def _of_slot(health: WalHealth, alarm_percent: float) -> list[Finding]:
    found = []
    if health.slot == "lost":
        found.append(
            Finding(
                name="slot-lost",
                sentence="The slot is lost: more WAL waited for the receiver than "
                "max_slot_wal_keep_size allows, so that there is a hole in the log.",
                hint="The receiver makes it anew, and a base copy is made. Find out why the "
                "receiver was away.",
            )
        )
    if health.cap_bytes is None:
        found.append(
            Finding(
                name="slot-without-limit",
                sentence="max_slot_wal_keep_size has no limit, so that a dead receiver would fill "
                "the disk and stop the database.",
                hint="Set it to what the disk can spare, e.g. 10GB.",
            )
        )
    elif health.slot == "unreserved" or health.used_percent >= alarm_percent:
        found.append(
            Finding(
                name="slot-filling",
                sentence=f"{_megabytes(health.kept_bytes)} of WAL wait for the receiver, "
                f"{health.used_percent:.0f} % of max_slot_wal_keep_size "
                f"({_megabytes(health.cap_bytes)}): at 100 % the slot is lost, and no moment "
                "from then on can be reached until the next base copy.",
                hint="Look at the log of the receiver and at its disk; if there is space, raise "
                "max_slot_wal_keep_size (it needs no restart).",
            )
        )
    return found


def _of_receiver(health: WalHealth) -> list[Finding]:
    if health.receiver is ReceiverState.DEAD:
        return [
            Finding(
                name="receiver-dead",
                sentence="No receiver streams; what is written now is not protected.",
                hint=_START_RECEIVER,
            )
        ]
    if health.receiver is ReceiverState.HANGS:
        return [
            Finding(
                name="receiver-hangs",
                sentence=f"The receiver is connected but has not replied for "
                f"{health.lag_seconds:.0f} s, and is {health.lag_bytes} bytes behind.",
                hint=_RECEIVER_COMES,
            )
        ]
    return []


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MB"
