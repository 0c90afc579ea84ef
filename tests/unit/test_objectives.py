"""Every finding says FAIL when its subject is broken, and UNKNOWN when it can't be looked at."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import PurePath

import pytest

from lifeboat.core import continuity
from lifeboat.core.checks import Status
from lifeboat.core.coverage import Place
from lifeboat.core.points import Asset, Tier
from lifeboat.core.protection import Finding as ProtectionFinding
from lifeboat.core.protection import Protection, State
from lifeboat.core.survey import (
    Cause,
    HotCopy,
    Interrupted,
    Listing,
    Parts,
    Problem,
    Receiver,
    Space,
    Unseen,
    WalFile,
)
from lifeboat.core.wal import Segment, Switch
from tests.unit.objectives_breaks import (
    AWAY,
    FAIL,
    UNKNOWN,
    Break,
    both,
    field,
    host,
    in_both_tiers,
    log,
    look,
    measured,
    no_receiver,
    parts,
    points,
    red,
    result,
    sighting,
    store,
    unseen_tier,
    without_sighting,
)
from tests.unit.objectives_fixtures import (
    NOW,
    SIZE,
    SYSTEM,
    a_continuity,
    a_drill,
    a_log,
    a_store,
    ago,
    good_survey,
    name_of,
    seen_from_s3,
    with_store,
)


def test_a_platform_on_which_all_is_good_is_green_from_the_host_and_from_afar() -> None:
    for survey in (good_survey(), seen_from_s3()):
        report = look(survey)
        assert red(report) == {}
        assert report.good
        assert len({finding.name for finding in report.findings}) == len(report.findings)
        assert all(finding.evidence and not finding.advice for finding in report.findings)


PASSWORD = Unseen("wrong password", Cause.PASSWORD)
MISSING = Unseen("there is no repository", Cause.MISSING)
OLD_DATABASE = 9.01 * 60
OTHER_SEGMENTS = {"histories": {2: (Switch(1, 3 * SIZE),)}}

# What is broken, and all that must be red then; the first one names it.
BROKEN: dict[str, tuple[Break, dict[str, Status]]] = {
    "backup-database stopped in silence": (
        in_both_tiers(Asset.DATABASE, OLD_DATABASE),
        {"database-backup-age": FAIL},
    ),
    "database is not copied to S3 any more": (
        points(Asset.DATABASE, Tier.S3, OLD_DATABASE),
        {"database-backup-age": FAIL},
    ),
    "files are late": (in_both_tiers(Asset.FILES, 46), {"files-backup-age": FAIL}),
    "files are older than may be lost": (
        in_both_tiers(Asset.FILES, 61),
        {
            "files-loss-exposure": FAIL,
            "server-loss-exposure": FAIL,
            "files-backup-age": FAIL,
        },
    ),
    "files reach S3 no more": (
        points(Asset.FILES, Tier.S3, 61),
        {"server-loss-exposure": FAIL, "files-backup-age": FAIL},
    ),
    "no point of files at all": (
        both(
            *(
                store(Asset.FILES, tier, points=(), parts=Parts(True, 1, 1, 1))
                for tier in (Tier.LOCAL, Tier.S3)
            )
        ),
        {
            "files-loss-exposure": FAIL,
            "server-loss-exposure": FAIL,
            "files-backup-age": FAIL,
            "files-verified-age": FAIL,
            "files-recovery-time": UNKNOWN,
            "server-recovery-time": UNKNOWN,
        },
    ),
    "models are looked at no more": (
        sighting("models", as_of=ago(minutes=8)),
        {"models-backup-age": FAIL},
    ),
    "models were looked at, but the point is not in the bucket": (
        both(
            points(Asset.MODELS, Tier.S3, 700.0),
            sighting("models", holds=name_of(Asset.MODELS)),
        ),
        {"server-loss-exposure": FAIL, "models-backup-age": FAIL},
    ),
    "models changed a day ago and nobody says that they were looked at": (
        both(without_sighting("models"), in_both_tiers(Asset.MODELS, 36.1 * 60)),
        {
            "models-loss-exposure": FAIL,
            "server-loss-exposure": FAIL,
            "models-backup-age": FAIL,
        },
    ),
    "a point is from the future": (
        in_both_tiers(Asset.FILES, -60, 46),
        {"clock": FAIL, "files-backup-age": FAIL},
    ),
    "the newest point of files is suspicious": (
        lambda s: with_store(
            s,
            dataclasses.replace(
                a_store(Asset.FILES, Tier.S3, 20, 50),
                points=tuple(
                    p.model_copy(update={"suspicion": "9 of 10 files are gone"}) if not n else p
                    for n, p in enumerate(a_store(Asset.FILES, Tier.S3, 20, 50).points)
                ),
            ),
        ),
        {"suspicious-points": FAIL, "files-backup-age": FAIL},
    ),
    "WAL is shipped no more": (
        sighting("wal", as_of=ago(seconds=91)),
        {"wal-lag-s3": FAIL},
    ),
    "WAL was not shipped for an hour": (
        sighting("wal", as_of=ago(minutes=61)),
        {"server-loss-exposure": FAIL, "wal-lag-s3": FAIL},
    ),
    "the bucket lost the newest segment that was shipped": (
        sighting("wal", holds=f"{SYSTEM}/1/0/9000100"),
        {"wal-lag-s3": FAIL},
    ),
    "a sighting of the log can't be read": (
        sighting("wal", holds="nonsense"),
        {"wal-lag-s3": FAIL},
    ),
    "nobody says whether WAL is complete": (
        both(without_sighting("wal"), log(Tier.S3, minutes_old=30)),
        {"wal-lag-s3": UNKNOWN},
    ),
    "sightings can't be read": (
        both(field(sightings=AWAY), in_both_tiers(Asset.MODELS, 5), in_both_tiers(Asset.CONFIG, 5)),
        {},
    ),
    "a restore test is overdue": (
        both(
            in_both_tiers(Asset.FILES, 20, verified_at=ago(days=2.1)),
            result(Asset.FILES, ended_at=ago(days=2.1)),
        ),
        {"files-verified-age": FAIL},
    ),
    "nothing was ever proven": (
        both(in_both_tiers(Asset.CONFIG, 900, verified_at=None), field(tests={})),
        {"config-verified-age": FAIL, "restore-test": UNKNOWN},
    ),
    "only a point that is gone was proven": (
        both(
            in_both_tiers(Asset.CONFIG, 900, verified_at=None),
            result(Asset.CONFIG, point="config-20250101T000000Z"),
        ),
        {"config-verified-age": FAIL},
    ),
    "a restore test failed": (
        result(Asset.DATABASE, passed=False, ended_at=ago(hours=1), error="a bit is flipped"),
        {"restore-test": FAIL},
    ),
    "results of restore tests can't be read": (field(tests=AWAY), {"restore-test": UNKNOWN}),
    "no drill": (field(drills=()), {"drill-age": FAIL}),
    "the last drill is old": (field(drills=(a_drill(46),)), {"drill-age": FAIL}),
    "one scenario failed in the last drill": (
        field(drills=(a_drill(20), a_drill(3, server=False))),
        {"drill-age": FAIL},
    ),
    "drills can't be read": (field(drills=AWAY), {"drill-age": UNKNOWN}),
    "wrong password in S3": (
        both(
            *(store(asset, Tier.S3, points=PASSWORD) for asset in Asset),
            log(Tier.S3, continuity=PASSWORD, key=PASSWORD),
        ),
        {
            "vault-opens-s3": FAIL,
            "server-loss-exposure": UNKNOWN,
            "server-recovery-time": UNKNOWN,
            "wal-lag-s3": UNKNOWN,
            "wal-key": UNKNOWN,
            "wal-continuity-s3": UNKNOWN,
            "foreign-timeline": UNKNOWN,
            **{f"repository-{asset}-s3": UNKNOWN for asset in Asset},
            **{f"{asset}-backup-age": UNKNOWN for asset in Asset},
        },
    ),
    "the key files are gone": (
        both(
            store(Asset.FILES, Tier.S3, points=PASSWORD, parts=Parts(True, 0, 1, 1)),
        ),
        {
            "repository-files-s3": FAIL,
            "server-loss-exposure": UNKNOWN,
            "server-recovery-time": UNKNOWN,
            "files-backup-age": UNKNOWN,
        },
    ),
    "the bucket is away": (
        both(
            unseen_tier(Tier.S3, AWAY),
            log(Tier.S3, continuity=AWAY, files=AWAY, key=AWAY),
            host(listing=AWAY),
        ),
        {
            "bucket-listing": FAIL,
            "server-loss-exposure": UNKNOWN,
            "server-recovery-time": UNKNOWN,
            "vault-opens-s3": UNKNOWN,
            "wal-lag-s3": UNKNOWN,
            "wal-key": UNKNOWN,
            "wal-continuity-s3": UNKNOWN,
            "wal-files-s3": UNKNOWN,
            "foreign-timeline": UNKNOWN,
            **{f"repository-{asset}-s3": UNKNOWN for asset in Asset},
            **{f"{asset}-backup-age": UNKNOWN for asset in Asset},
        },
    ),
    "a repository is gone": (
        store(Asset.MODELS, Tier.LOCAL, points=MISSING, parts=MISSING),
        {
            "repository-models-local": FAIL,
            "models-backup-age": UNKNOWN,
            "models-recovery-time": UNKNOWN,
        },
    ),
    "all index files are gone": (parts(indexes=0), {"repository-files-s3": FAIL}),
    "all snapshots are gone": (parts(snapshots=0), {"repository-files-s3": FAIL}),
    "the repository's config is gone": (parts(config=False), {"repository-files-s3": FAIL}),
    "an index file is empty": (parts(stunted=("index/ab12",)), {"repository-files-s3": FAIL}),
    "a repository's files can't be listed": (
        store(Asset.FILES, Tier.S3, parts=AWAY),
        {"repository-files-s3": UNKNOWN},
    ),
    "the key of the WAL is gone": (log(Tier.S3, key=False), {"wal-key": FAIL}),
    "a segment is missing behind the newest base copy": (
        log(Tier.S3, continuity=a_continuity(gone=(6,))),
        {"wal-continuity-s3": FAIL, "wal-lag-s3": FAIL, "server-loss-exposure": FAIL},
    ),
    "a segment is missing behind an older base copy": (
        log(Tier.LOCAL, continuity=a_continuity(gone=(3,))),
        {"wal-continuity-local": FAIL},
    ),
    "the timeline that is written does not go on from any base copy": (
        log(Tier.S3, continuity=a_continuity(**OTHER_SEGMENTS)),
        {"wal-continuity-s3": FAIL, "wal-lag-s3": FAIL, "server-loss-exposure": FAIL},
    ),
    "there is no base copy": (
        log(Tier.S3, continuity=continuity.judge([], whole=[], histories={})),
        {"wal-continuity-s3": FAIL, "server-loss-exposure": FAIL, "wal-lag-s3": FAIL},
    ),
    "WAL of another cluster": (
        log(Tier.S3, continuity=a_continuity(other_systems=["666"])),
        {"foreign-timeline": FAIL},
    ),
    "WAL of a timeline without history": (
        log(
            Tier.LOCAL,
            continuity=a_continuity(
                whole=[*(Segment(1, n) for n in range(2, 8)), Segment(7, 5)],
            ),
        ),
        {"foreign-timeline": FAIL},
    ),
    "a WAL object is cut short": (
        log(
            Tier.S3,
            files=(*a_log(Tier.S3).files, WalFile(Segment(1, 3).name(SIZE), 0, ago(hours=1))),
        ),
        {"wal-files-s3": FAIL},
    ),
    "a local segment is cut short": (
        log(
            Tier.LOCAL,
            files=(WalFile(Segment(1, 3).name(SIZE), SIZE - 1, ago(hours=1)),),
        ),
        {"wal-files-local": FAIL},
    ),
    "a configuration file was emptied": (
        field(emptied=("config/nginx.conf",)),
        {"configuration": FAIL},
    ),
    "lifeboat.yaml in the vault can't be read": (
        field(unreadable_settings={"config-x": "there are no settings in it"}),
        {"configuration": FAIL},
    ),
    "the configuration's facts can't be read": (
        field(emptied=AWAY, certificates=AWAY),
        {"configuration": UNKNOWN, "certificates": UNKNOWN},
    ),
    "a certificate ends soon": (
        field(certificates={"a.pem": NOW + timedelta(days=20)}),
        {"certificates": FAIL},
    ),
    "of a certificate only a link is backed up": (
        field(
            certificates={"/etc/x/archive/a1.pem": NOW + timedelta(days=80)},
            certificates_elsewhere=("/etc/x/archive/a1.pem",),
        ),
        {"certificates": FAIL},
    ),
    "a certificate has ended": (
        field(certificates={"a.pem": ago(days=1)}),
        {"certificates": FAIL},
    ),
    "restores are too slow": (
        measured(Asset.DATABASE, restore_seconds=1500.0),
        {"server-recovery-time": FAIL},
    ),
    "there is too much WAL to replay": (
        measured(Asset.DATABASE, wal_replay_seconds=4000.0),
        {"server-recovery-time": FAIL, "database-recovery-time": FAIL},
    ),
    "no restore was measured": (
        field(measured={}),
        {f"{name}-recovery-time": UNKNOWN for name in ("database", "server", "files", "models")},
    ),
    "what was measured can't be read": (
        field(measured=AWAY),
        {f"{name}-recovery-time": UNKNOWN for name in ("database", "server", "files", "models")},
    ),
    "there is no hot copy": (
        host(hot_copy=None),
        {"hot-copy": FAIL},
    ),
    "a file of the hot copy is gone": (
        host(hot_copy=HotCopy("database-x", ago(minutes=60), "base/5/1259 is missing")),
        {"hot-copy": FAIL},
    ),
    "the hot copy is older than the newest point": (
        host(hot_copy=HotCopy("database-x", ago(minutes=500))),
        {"hot-copy": FAIL},
    ),
    "the hot copy can't be looked at": (host(hot_copy=AWAY), {"hot-copy": UNKNOWN}),
    "no receiver streams": (no_receiver(), {"wal-receiver": FAIL}),
    "no receiver streams, and none did for an hour": (
        both(
            no_receiver(),
            log(Tier.LOCAL, minutes_old=61),
            sighting("wal", as_of=ago(minutes=61)),
        ),
        {
            "wal-receiver": FAIL,
            "database-loss-exposure": FAIL,
            "server-loss-exposure": FAIL,
            "wal-lag-s3": FAIL,
        },
    ),
    "commits do not wait although they should": (
        host(receiver=Receiver(streaming=True, synchronous=False)),
        {"wal-receiver": FAIL},
    ),
    "the receiver lags so far that the slot is half full": (
        host(
            receiver=Receiver(
                streaming=True,
                synchronous=True,
                kept_percent=50,
                problems=(Problem("the slot fills", "look at the receiver"),),
            )
        ),
        {"wal-receiver": FAIL},
    ),
    "the database can't be asked": (host(receiver=AWAY), {"wal-receiver": UNKNOWN}),
    "a listing of the bucket is stale": (
        host(listing=Listing(listed=False, same_content=True, seconds=0.1)),
        {"bucket-listing": FAIL},
    ),
    "the bucket gives other bytes back": (
        host(listing=Listing(listed=True, same_content=False, seconds=0.1)),
        {"bucket-listing": FAIL},
    ),
    "the bucket is very slow": (
        host(listing=Listing(listed=True, same_content=True, seconds=11)),
        {"bucket-listing": FAIL},
    ),
    "the next base copy does not fit": (
        host(space=Space(free_bytes=2_000_000_000, reserve_bytes=64 << 20)),
        {"free-space": FAIL},
    ),
    "the disk is full within a week": (
        both(
            points(Asset.FILES, Tier.LOCAL, 20, 1440, 2880, added_bytes=8_000_000_000),
            host(space=Space(free_bytes=50_000_000_000)),
        ),
        {"free-space": FAIL},
    ),
    "the bucket's versioning was switched off": (
        host(
            protection=(
                ProtectionFinding(
                    protection=Protection.VERSIONING, state=State.EXPOSED, evidence="suspended"
                ),
            )
        ),
        {"bucket-protection": FAIL},
    ),
    "our key may not look at the protection": (
        host(
            protection=(
                ProtectionFinding(
                    protection=Protection.LIFECYCLE, state=State.UNKNOWN, evidence="denied"
                ),
            )
        ),
        {"bucket-protection": UNKNOWN},
    ),
    "the protection can't be asked": (host(protection=AWAY), {"bucket-protection": UNKNOWN}),
    "free space can't be asked": (host(space=AWAY), {"free-space": UNKNOWN}),
    "a new store is not backed up": (
        host(places=(Place("data/wiki", PurePath("/srv/cad/data/wiki"), "beside data/files"),)),
        {"coverage": FAIL},
    ),
    "the places can't be read": (host(places=AWAY), {"coverage": UNKNOWN}),
    "a recovery was left half way": (
        host(interrupted=(Interrupted("recover-1", "recover-files", ago(hours=1), "last: x"),)),
        {"interrupted-runs": FAIL},
    ),
    "interrupted runs can't be read": (host(interrupted=AWAY), {"interrupted-runs": UNKNOWN}),
    "a recovered host was not verified": (host(unproven="by recover-1"), {"host-verified": FAIL}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_named_and_nothing_else(what: str) -> None:
    act, expected = BROKEN[what]
    report = look(act(good_survey()))
    assert red(report) == expected, {f.name: f.evidence for f in report.red}
    assert report.good is (not expected)
    for finding in report.red:
        assert finding.evidence
        assert finding.advice or finding.status is UNKNOWN
