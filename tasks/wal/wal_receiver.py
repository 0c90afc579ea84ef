"""The receiver of the write-ahead log: started, watched, replaced when it hangs, armed again.

`lifeboat wal receive` runs pg_receivewal for as long as it lives, and the process manager keeps
`lifeboat wal receive` alive. What it writes lies in `database/wal/<system identifier>/`, in a
directory for each timeline at which a receiver began, and in a further one (`00000001-2`) where it
had to begin anew behind a hole.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lifeboat.core import wal as log_positions
from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from tasks import places, services
from tasks.database import SLOT, connection
from tasks.record import current_run

log = logging.getLogger("lifeboat")

PATIENCE_SECONDS = 10.0  # pg_receivewal replies every 2 s
_LOOK_SECONDS = 0.25
_WATCH_SECONDS = 2.0
_REST_SECONDS = 0.5
_LONG_REST_SECONDS = 10.0
_RECEIVER_SECONDS = 30.0
_SLOT_SECONDS = 3.0


def receiver_directory(settings: Settings, identity: postgres.Identity) -> Path:
    """Where the receiver writes: a directory of its own for each timeline at which it begins.

    After a recovery to an earlier point a receiver on the old directory would go on at a position
    that no longer exists.
    """
    return _directories(settings, identity)[-1]


def _directories(settings: Settings, identity: postgres.Identity) -> list[Path]:
    """The one of the timeline, and those after it in which the receiver began anew."""
    root = places.wal_directory(settings) / identity.system_identifier
    name = f"{identity.timeline:08X}"
    anew = [path for path in root.glob(f"{name}-*") if path.name[9:].isdecimal()]
    return [root / name, *sorted(anew, key=lambda path: int(path.name[9:]))]


def _begins_at(directory: Path, segment_bytes: int) -> int:
    """Number of the segment with which pg_receivewal goes on in a directory; 0: it is empty."""
    names = [path.name for path in directory.glob("0*")]
    whole = log_positions.whole_segments(names, segment_bytes)
    growing = log_positions.partial_segments(names, segment_bytes)
    return max(
        max((segment.number + 1 for segment in whole), default=0),
        max((segment.number for segment in growing), default=0),
    )


def receive(settings: Settings) -> None:
    """Receive WAL for as long as this process lives; wait out every absence of the database.

    Once it streams it lets commits wait for it, if the settings say synchronous: so a receiver
    that was switched off by `lifeboat wal asynchronous` takes its place again by itself.
    """
    server = connection(settings)
    log.info("Receiving WAL of %s:%d (%s)", server.host, server.port, settings.database.wal)
    failures = 0
    while True:
        if not postgres.answers(server):
            time.sleep(_LOOK_SECONDS)
            continue
        streamed = threading.Event()
        try:
            if not _receive_once(settings, server, streamed):
                time.sleep(_LOOK_SECONDS)
                continue
            log.warning("The WAL receiver ended: the stream broke off. It is begun again.")
        except PreconditionError as error:
            log.error("%s", error)
        except RecoveryError as error:
            log.warning("The WAL receiver ended: %s It is begun again.", error)
        failures = 0 if streamed.is_set() else failures + 1
        time.sleep(min(_LONG_REST_SECONDS, _REST_SECONDS * 2**failures))


def _receive_once(
    settings: Settings, server: postgres.Connection, streamed: threading.Event
) -> bool:
    """Receive until the stream ends. False: the database still replays WAL itself."""
    identity = postgres.identify(server)
    if identity.in_recovery:
        return False
    if postgres.ensure_slot(server, SLOT):
        log.error(
            "The slot %s was lost: more WAL waited for the receiver than max_slot_wal_keep_size "
            "allows. It is made anew; WAL of the time between may be gone.",
            SLOT,
        )
    try:
        _bridge(settings, server, identity)
    except (OSError, RecoveryError) as error:
        # Where a receiver may not look into the data, the recovery does.
        log.warning("Looking for WAL from before the slot: %s", error)
    _claim_slot(server)
    directory = receiver_directory(settings, identity)
    if _is_left_behind(server, directory, identity.wal_segment_bytes):
        directory = _begin_anew(directory, _directories(settings, identity))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    hung: list[str] = []
    over = threading.Event()
    watch = threading.Thread(
        target=_look_after, args=(settings, server, streamed, hung, over), daemon=True
    )
    watch.start()

    def end_if_it_hangs() -> None:
        if hung:
            raise TransientError(f"Receiving WAL: pg_receivewal hangs, {hung[0]}.")

    try:
        postgres.receive_wal(
            server,
            directory,
            slot=SLOT,
            name=SLOT,
            synchronous=settings.database.wal == "synchronous",
            on_line=_tell,
            on_look=end_if_it_hangs,
        )
    finally:
        over.set()
        watch.join()
    return True


def _tell(line: str) -> None:
    log.log(logging.ERROR if "error:" in line else logging.INFO, "%s", line)


def _claim_slot(server: postgres.Connection) -> None:
    """Wait until the slot is free; free it from a receiver that is gone or hangs.

    Raises PreconditionError if another one receives by it.
    """
    began = time.monotonic()
    while (slot := postgres.slot_of(server, SLOT)) and slot.in_use:
        other = postgres.receiver_of(server, SLOT)
        waited = time.monotonic() - began
        if waited > 1 and (other is None or (other.silent_seconds or 0) > PATIENCE_SECONDS):
            log.warning("The slot %s is held by a receiver that is gone or hangs: freed.", SLOT)
            postgres.free_slot(server, SLOT)
        elif waited > _SLOT_SECONDS:
            raise PreconditionError(
                f"Receiving WAL: another receiver uses the slot {SLOT}.",
                hint="Run `lifeboat wal receive` once only, on the platform's own host.",
            )
        time.sleep(_LOOK_SECONDS)


def _is_left_behind(server: postgres.Connection, directory: Path, segment_bytes: int) -> bool:
    """Whether the receiver would ask for WAL from before what the slot keeps.

    The server may still have it, but to ask proves nothing and spoils the slot: the receiver's
    first reply sets the slot back to where it asks, whether the server has that WAL or not, and
    from then on the slot claims to keep what is gone.
    """
    begins, restart = _begins_at(directory, segment_bytes), postgres.slot_restart_lsn(server, SLOT)
    return restart is not None and 0 < begins < restart // segment_bytes


def _begin_anew(behind: Path, known: list[Path]) -> Path:
    """A directory in which the receiver goes by what the slot keeps, and by no file of before."""
    directory = known[0].with_name(f"{known[0].name}-{len(known) + 1}")
    log.error(
        "The server need not have the WAL that comes after %s: there is a hole. The receiver "
        "begins anew in %s; a new base copy is needed.",
        behind,
        directory,
    )
    return directory


# --- watching it ----------------------------------------------------------------------------


@dataclass
class Vigil:
    """Judges by what the server sees of the receiver whether it hangs. Times are monotonic."""

    _sign_of_life: object = None
    _alive_at: float | None = None
    _written: int | None = None
    _moved_at: float | None = None

    def judge(self, receiver: postgres.Receiver | None, *, at: float) -> str:
        """Why it hangs; empty: nothing speaks for it."""
        sign = receiver.replied_at if receiver else None
        if self._alive_at is None or (sign is not None and sign != self._sign_of_life):
            self._alive_at, self._sign_of_life = at, sign
        written = receiver.written_lsn if receiver else None
        if self._moved_at is None or written != self._written or not _is_behind(receiver):
            self._moved_at, self._written = at, written
        if at - self._alive_at > PATIENCE_SECONDS:
            what = "has not replied to the server" if receiver else "is not connected to the server"
            return f"it {what} for {at - self._alive_at:.0f} s"
        if at - self._moved_at > PATIENCE_SECONDS and receiver:
            return (
                f"it has written nothing for {at - self._moved_at:.0f} s, and the server is "
                f"{receiver.lag_bytes} bytes ahead"
            )
        return ""


def _is_behind(receiver: postgres.Receiver | None) -> bool:
    return receiver is not None and receiver.lag_bytes > 0


def _look_after(
    settings: Settings,
    server: postgres.Connection,
    streamed: threading.Event,
    hung: list[str],
    over: threading.Event,
) -> None:
    """Arm the receiver once it streams, and say when it hangs. A dead database proves nothing."""
    vigil, told = Vigil(), ""
    while not over.wait(_WATCH_SECONDS if streamed.is_set() or told else _LOOK_SECONDS):
        try:
            why = vigil.judge(postgres.receiver_of(server, SLOT), at=time.monotonic())
            if why:
                hung.append(why)
                return
        except RecoveryError as error:
            log.warning("Watching the WAL receiver: %s", error)
            vigil = Vigil()
            continue
        try:
            if not streamed.is_set() and arm(settings, server):
                streamed.set()
        except RecoveryError as error:
            if str(error) != told:
                log.warning("Letting commits wait for the WAL receiver: %s", error)
            told = str(error)


def arm(settings: Settings, server: postgres.Connection) -> bool:
    """Let commits wait for the receiver if they should; say whether it streams.

    If they should no longer, they must not: one that is asynchronous syncs whole segments only, and
    each commit would wait for the end of its segment.
    """
    receiver = postgres.receiver_of(server, SLOT)
    if receiver is None or receiver.state != "streaming":
        return False
    if settings.database.wal == "synchronous":
        postgres.set_synchronous(server, SLOT)
    else:
        postgres.set_asynchronous(server, SLOT)
    return True


def disarm(settings: Settings) -> None:
    """Let commits wait for no receiver, until one streams again."""
    postgres.set_synchronous(connection(settings), "")


# --- after a recovery -----------------------------------------------------------------------


def rearm(settings: Settings) -> None:
    """Make the slot, start the receiver and wait until it streams.

    A receiver that does not come must not keep the platform down: commits then wait for none, and
    the record and the log say so. Nor must a vault that can't take what nobody has received yet:
    the server keeps it, and the receiver tries it again.
    """
    server = connection(settings)
    identity = postgres.identify(server)
    postgres.ensure_slot(server, SLOT)
    try:
        _bridge(settings, server, identity)
    except (OSError, RecoveryError) as error:
        log.error("WAL from before the slot is in no vault yet: %s", error)
        current_run().fact(wal_before_the_slot="not in the vault")
    receivers = [name for name in settings.stack.backup_services if "receiver" in name]
    if not receivers:
        log.warning("No WAL receiver is named in stack.backup_services: WAL is not protected.")
        return
    try:
        services.stack_of(settings).start(receivers)
        deadline = time.monotonic() + _RECEIVER_SECONDS
        while not arm(settings, server):
            if time.monotonic() > deadline:
                raise PreconditionError(
                    f"Waiting for the WAL receiver: it does not stream after "
                    f"{_RECEIVER_SECONDS:g} s.",
                    hint=f"Look at the log of {receivers[0]}.",
                )
            time.sleep(_LOOK_SECONDS / 5)
    except RecoveryError as error:
        log.error("The recovered database is not protected yet: %s", error)
        postgres.set_synchronous(server, "")
        current_run().fact(wal_receiver="does not stream")


def _bridge(settings: Settings, server: postgres.Connection, identity: postgres.Identity) -> None:
    """Copy what was written while nobody received it, so that the vault has it.

    That is what the new timeline has written before the slot begins; and, if the recovery before
    this one died before it had made its slot, what was written until this one found it in the
    damaged server's own log. The server has kept all of it since its recovery, and may let go of it
    now. A receiver does this too: the recovery may have died before it came here.
    """
    data = settings.database.data_directory
    if not postgres.keeps_all_wal(data):
        return
    began = postgres.recovered_to(data)
    begins = postgres.slot_restart_lsn(server, SLOT)
    if begins is None:
        return
    if began.timeline == identity.timeline:
        size, system = identity.wal_segment_bytes, identity.system_identifier
        there = postgres.salvage_segments(data, system, size)
        whole = log_positions.whole_segments(there, size)
        numbers = range(began.lsn // size, begins // size)
        own = whole & {log_positions.Segment(identity.timeline, number) for number in numbers}
        for name in sorted(segment.name(size) for segment in own):
            _copy(there[name], receiver_directory(settings, identity) / name)
        ancestors = {f"{switch.timeline:08X}.history" for switch in began.ancestors}
        inherited = log_positions.inherited_segments(whole, began.ancestors, size)
        # A history first: without it nobody knows whose the segments are.
        names = sorted(ancestors & there.keys()) + sorted(s.name(size) for s in inherited)
        for name in _lacking(settings, system, names):
            # In a directory of its own: the receiver goes on from what lies in its own one.
            _copy(there[name], places.wal_directory(settings) / system / name[:8] / name)
    postgres.let_go_of_wal(data)
    postgres.reload(server)


def _lacking(settings: Settings, system: str, wanted: list[str]) -> list[str]:
    """Those that neither tier has whole. A bucket that does not answer counts as empty."""
    local = postgres.collect_segments(places.wal_directory(settings), system)
    lacking = [name for name in wanted if name not in local]
    if not lacking:
        return []
    try:
        keys = {item.key for item in places.bucket(settings).list(f"{places.WAL_PREFIX}{system}/")}
    except RecoveryError as error:
        log.warning("Looking which WAL the bucket has: %s", error)
        return lacking
    return [name for name in lacking if places.wal_key(system, name) not in keys]


def _copy(file: Path, target: Path) -> None:
    """Copy a file of the log, durably: the server lets go of it after this.

    Raises PreconditionError if the disk has no room for it.
    """
    size = file.stat().st_size
    if target.exists() and target.stat().st_size == size:
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    filesystem.require_free(target.parent, size, doing=f"Keeping {target.name} in the vault")
    # Under its name only when it is whole, or half of it would be shipped.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # With its time: the one of a history says when that timeline began.
        shutil.copy2(file, part)
        filesystem.sync_file(part)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    filesystem.sync_directory(target.parent)
