"""One look at everything that the objectives depend on: from the platform's host, or from afar.

Nothing is changed but for a probe object in the bucket, no lock is taken, and no failure ends the
look: what can't be seen is part of the survey.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lifeboat.core.alarms import Limits
from lifeboat.core.certificates import kept_elsewhere
from lifeboat.core.points import Asset, Tier
from lifeboat.core.survey import Log, Store, Survey, Unseen
from lifeboat.settings import Settings
from lifeboat.tools import restic
from tasks import places, survey_vault
from tasks.looking import seen
from tasks.orchestration import side_by_side
from tasks.settings_in_vault import SettingsInVault
from tasks.survey_host import look_at_host, protected

_Tier = tuple[tuple[Store, ...], Log]


def limits_of(settings: Settings) -> Limits:
    """The numbers by which the platform wants to be judged."""
    keep, watch = settings.keep, settings.watch
    return Limits(
        rto_seconds=settings.objectives.rto_seconds,
        rpo_seconds=settings.objectives.rpo_seconds,
        every_seconds={
            Asset.DATABASE: keep.database_seconds,
            Asset.FILES: keep.files_seconds,
            Asset.MODELS: keep.models_seconds,
            Asset.CONFIG: keep.on_change_seconds,
        },
        on_change_seconds=keep.on_change_seconds,
        wal_seconds=keep.wal_seconds,
        watch_seconds=keep.watch_seconds,
        late_factor=watch.late_factor,
        verified_days=watch.verified_days,
        drill_days=watch.drill_days,
        certificate_days=watch.certificate_days,
        free_space_days=watch.free_space_days,
        synchronous=settings.database.wal == "synchronous",
        reviews=settings.reviews.wanted,
        excused=watch.excused,
        protected=protected(settings),
    )


def of_host(settings: Settings) -> Survey:
    """Look from the platform's own host at both tiers and at the host itself."""
    with restic.listing_once():
        found = side_by_side(
            {
                "local": lambda: survey_vault.look_at_tier(settings, Tier.LOCAL),
                "bucket": lambda: _look_at_bucket(settings),
                "host": lambda: look_at_host(settings),
            }
        )
        local_stores, local_log = found["local"]
        bucket: _Bucket = found["bucket"]
        stores = (*local_stores, *bucket.stores)
        facts = seen(lambda: survey_vault.configuration_facts(settings, stores))
    return Survey(
        platform=settings.platform,
        seen_from="host",
        stores=stores,
        logs={Tier.LOCAL: local_log, Tier.S3: bucket.log},
        certificates=facts if isinstance(facts, Unseen) else facts.certificates,
        certificates_elsewhere=() if isinstance(facts, Unseen) else kept_elsewhere(facts),
        emptied=facts if isinstance(facts, Unseen) else survey_vault.emptied_files(facts),
        host=found["host"],
        **bucket.notes,
    )


def of_bucket(found: SettingsInVault) -> Survey:
    """Look from any machine at the bucket alone. Nothing is written anywhere."""
    facts = found.source.facts
    with restic.listing_once():
        bucket = _look_at_bucket(found.settings, host_report=True)
    return Survey(
        platform=found.settings.platform,
        seen_from="s3",
        stores=bucket.stores,
        logs={Tier.S3: bucket.log},
        certificates=facts.certificates,
        certificates_elsewhere=kept_elsewhere(facts),
        emptied=survey_vault.emptied_files(facts),
        unreadable_settings=found.unreadable,
        **bucket.notes,
    )


@dataclass(frozen=True)
class _Bucket:
    stores: tuple[Store, ...]
    log: Log
    notes: dict[str, Any]  # fields of the survey


def _look_at_bucket(settings: Settings, *, host_report: bool = False) -> _Bucket:
    away = seen(lambda: places.bucket(settings).reachable())
    if isinstance(away, Unseen):
        # Asked once: every single look would wait as long for nothing.
        stores, log = survey_vault.unseen_tier(Tier.S3, away)
        return _Bucket(stores, log, {**_notes(settings, in_bucket=False), "rehearsals": away})
    work: dict[str, Callable[[], Any]] = {
        "tier": lambda: survey_vault.look_at_tier(settings, Tier.S3),
        "notes": lambda: _notes(settings, in_bucket=True),
    }
    if host_report:
        work["host_report"] = lambda: seen(lambda: survey_vault.host_report(settings))
    found = side_by_side(work)
    stores, log = found["tier"]
    notes = found["notes"]
    notes["rehearsals"] = seen(lambda: survey_vault.rehearsals(settings, notes["drills"]))
    if host_report:
        notes["host_report"] = found["host_report"]
    return _Bucket(stores, log, notes)


def _notes(settings: Settings, *, in_bucket: bool) -> dict[str, Any]:
    notes = survey_vault.Notes(settings, in_bucket=in_bucket)
    return side_by_side(
        {
            name: functools.partial(seen, getattr(notes, name))
            for name in ("sightings", "tests", "drills", "measured", "reviews")
        }
    )
