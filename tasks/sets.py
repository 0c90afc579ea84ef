"""One coherent set of everything: the moment to which it belongs, and whether it holds together."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pydantic import TypeAdapter

from lifeboat.core import sets
from lifeboat.core.errors import PreconditionError, RecoveryError, VerificationFailed
from lifeboat.core.points import Asset, Facts, Tier
from lifeboat.core.references import CrossCheck, Referred, cross_check, still_missing
from lifeboat.core.wal import format_lsn, parse_lsn
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from tasks import clock, integrity, locks, places
from tasks.database import SLOT, connection
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.wal import wal_shipping

log = logging.getLogger("lifeboat")

CROSS_CHECK_NAME = "cross-check.json"
_RECEIVER_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_QUERY_SECONDS = 3600.0
_NAMED = 5  # missing files in a message; all are in the record


@contextmanager
def everything_held(settings: Settings, *, run: str) -> Iterator[None]:
    """Hold all assets, so that none of them is backed up beside. Raises LockBusy."""
    with ExitStack() as held:
        for asset in Asset:
            held.enter_context(locks.backup_lock(settings, asset, run=run))
        yield


@dataclass(frozen=True)
class Moment:
    """The moment of a set: a position in the WAL, and what the rows referred to then."""

    set_id: str
    lsn: str
    referred: Mapping[Asset, tuple[Referred, ...]]  # an asset without a query is left out


def new_set_id() -> str:
    return sets.set_id(clock.now())


def _queries(settings: Settings) -> dict[Asset, str]:
    declared = {
        Asset.FILES: settings.files.manifest_query,
        Asset.MODELS: settings.models.manifest_query,
    }
    return {asset: query for asset, query in declared.items() if query}


@step(retries=2)
def name_moment(settings: Settings, set_id: str) -> Moment:
    """Note where the database is and what its rows refer to, in one snapshot of it.

    After the base copy, for a base can't be brought back to a moment before its end; before files
    and models are read, for a row's file is written before the row.
    """
    queries = _queries(settings)
    found = postgres.name_moment(
        connection(settings), set_id, list(queries.values()), timeout_seconds=_QUERY_SECONDS
    )
    current_run().fact(set_id=set_id, set_lsn=found.lsn, set_is_restore_point=found.is_named)
    referred = {
        asset: integrity.referred_by(rows) for asset, rows in zip(queries, found.rows, strict=True)
    }
    return Moment(set_id=set_id, lsn=found.lsn, referred=referred)


def _referred_now(settings: Settings) -> dict[Asset, tuple[Referred, ...]]:
    server = connection(settings)
    return {
        asset: integrity.referred_by(postgres.query(server, text, timeout_seconds=_QUERY_SECONDS))
        for asset, text in _queries(settings).items()
    }


@step()
def ship_up_to(settings: Settings, moment: Moment) -> str:
    """Bring the WAL up to the set's moment to S3; say why it is not there, empty if it is."""
    wanted = parse_lsn(moment.lsn)
    server = connection(settings)
    deadline = time.monotonic() + _RECEIVER_SECONDS
    problem = ""
    try:
        while (received := _received(server)) < wanted:
            if time.monotonic() > deadline:
                raise PreconditionError(
                    f"Waiting for the WAL receiver: it has {format_lsn(received)}, not "
                    f"{moment.lsn} yet, after {_RECEIVER_SECONDS:g} s.",
                    hint="Does `lifeboat wal receive` run? `lifeboat check` tells.",
                )
            time.sleep(_LOOK_SECONDS)
    except RecoveryError as error:
        problem = str(error)
        log.error("The WAL of %s is not all in S3: %s", moment.set_id, problem)
    wal_shipping.ship(settings)
    current_run().fact(set_wal_in_s3=not problem)
    return problem


def _received(server: postgres.Connection) -> int:
    """Up to where the receiver's files can be read and shipped.

    Not what it has synced to its disk: one that is not synchronous syncs whole segments only.
    """
    receiver = postgres.receiver_of(server, SLOT)
    return receiver.written_lsn or 0 if receiver else 0


@step(retries=1)
def check_references(
    settings: Settings,
    moment: Moment,
    stored: Mapping[Asset, tuple[Facts, Mapping[Tier, str]]],
) -> tuple[CrossCheck, ...]:
    """Compare what the rows refer to with what the set's snapshots in S3 hold; record it all.

    What was deleted while the set was made, row and file, is not missing.
    """
    held = side_by_side(
        {
            str(asset): functools.partial(_held, settings, *stored[asset])
            for asset in moment.referred
        }
    )
    losses = integrity.known_losses(settings)
    found = [
        cross_check(
            asset,
            stored[asset][0].point,
            referred=referred,
            held=held[str(asset)],
            known_losses=losses if asset is Asset.FILES else (),
        )
        for asset, referred in moment.referred.items()
    ]
    if any(check.missing for check in found):
        now = _referred_now(settings)
        found = [still_missing(check, now[check.asset]) for check in found]
    run = current_run()
    for check in found:
        log.info("Cross-check of %s", check.in_words)
        run.fact(
            **{
                f"{check.asset}_missing": len(check.missing),
                f"{check.asset}_unreferenced": check.unreferenced,
            }
        )
    run.keep(CROSS_CHECK_NAME, _REPORT.dump_json(tuple(found), indent=1).decode())
    return tuple(found)


_REPORT = TypeAdapter(tuple[CrossCheck, ...])


def _held(
    settings: Settings, facts: Facts, snapshots: Mapping[Tier, str]
) -> dict[str, dict[str, int]]:
    """Sizes by directory and path, from S3: that is what is left when this host is lost."""
    store = places.repository(settings, facts.asset, Tier.S3)
    return {
        name: {
            entry.path: entry.bytes
            for entry in store.list_files(snapshots[Tier.S3], subfolder=directory.path)
        }
        for name, directory in facts.directories.items()
    }


def require_whole(moment: Moment, checks: tuple[CrossCheck, ...], wal_problem: str) -> None:
    """Raise VerificationFailed if the set lacks what rows refer to, or the WAL of its moment."""
    wrong = [wal_problem] if wal_problem else []
    for check in checks:
        if check.missing:
            names = ", ".join(item.path for item in check.missing[:_NAMED])
            wrong.append(
                f"{check.point} lacks {len(check.missing)} of {check.referred} {check.asset} that "
                f"the database refers to, first {names}"
            )
    if wrong:
        raise VerificationFailed(
            f"Backing up the platform: all of {moment.set_id} is stored, but {'; '.join(wrong)}.",
            hint=f"All names are in {CROSS_CHECK_NAME} of the record. If files are lost: "
            "`lifeboat recover files`.",
        )
