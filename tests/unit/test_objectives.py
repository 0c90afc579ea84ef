"""Every finding says FAIL when its subject is broken, and UNKNOWN when it can't be looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePath

import pytest

from lifeboat.core import continuity
from lifeboat.core.checks import Status
from lifeboat.core.coverage import Place
from lifeboat.core.objectives import Report, judge, only_on_host
from lifeboat.core.points import Asset, Tier
from lifeboat.core.protection import Finding as ProtectionFinding
from lifeboat.core.protection import Protection, State
from lifeboat.core.survey import (
    Cause,
    HostReport,
    HotCopy,
    Interrupted,
    Listing,
    Parts,
    Problem,
    Receiver,
    Space,
    Store,
    Survey,
    Unseen,
    WalFile,
)
from lifeboat.core.wal import Segment, Switch
from tests.unit.objectives_fixtures import (
    LIMITS,
    NOW,
    SIZE,
    SYSTEM,
    a_base,
    a_continuity,
    a_drill,
    a_log,
    a_store,
    ago,
    good_survey,
    name_of,
    seen_from_s3,
    with_host,
    with_store,
)

FAIL, UNKNOWN = Status.FAIL, Status.UNKNOWN
AWAY = Unseen("S3 does not answer")
Break = Callable[[Survey], Survey]


def look(survey: Survey, **limits: object) -> Report:
    return judge(survey, LIMITS.model_copy(update=limits), NOW)


def red(report: Report) -> dict[str, Status]:
    return {finding.name: finding.status for finding in report.red}


def points(asset: Asset, tier: Tier, *minutes_old: float, **more: object) -> Break:
    return lambda survey: with_store(survey, a_store(asset, tier, *minutes_old, **more))


def both(*breaks: Break) -> Break:
    def act(survey: Survey) -> Survey:
        for one in breaks:
            survey = one(survey)
        return survey

    return act


def in_both_tiers(asset: Asset, *minutes_old: float, **more: object) -> Break:
    return both(*(points(asset, tier, *minutes_old, **more) for tier in (Tier.LOCAL, Tier.S3)))


def store(asset: Asset, tier: Tier, **changed: object) -> Break:
    return lambda s: with_store(s, dataclasses.replace(a_store(asset, tier), **changed))


def parts(**changed: object) -> Break:
    whole = {"config": True, "keys": 1, "indexes": 1, "snapshots": 1}
    return store(Asset.FILES, Tier.S3, parts=Parts(**{**whole, **changed}))


def unseen_tier(tier: Tier, why: Unseen) -> Break:
    def act(survey: Survey) -> Survey:
        for asset in Asset:
            survey = with_store(survey, Store(asset, tier, why, why))
        return survey

    return act


def log(tier: Tier, **changed: object) -> Break:
    return lambda s: dataclasses.replace(s, logs={**s.logs, tier: a_log(tier, **changed)})


def field(**changed: object) -> Break:
    return lambda survey: dataclasses.replace(survey, **changed)


def sighting(subject: str, **changed: object) -> Break:
    def act(survey: Survey) -> Survey:
        assert not isinstance(survey.sightings, Unseen)
        known = survey.sightings[subject].model_copy(update=changed)
        return dataclasses.replace(survey, sightings={**survey.sightings, subject: known})

    return act


def without_sighting(subject: str) -> Break:
    def act(survey: Survey) -> Survey:
        assert not isinstance(survey.sightings, Unseen)
        left = {name: s for name, s in survey.sightings.items() if name != subject}
        return dataclasses.replace(survey, sightings=left)

    return act


def result(asset: Asset, **changed: object) -> Break:
    def act(survey: Survey) -> Survey:
        assert not isinstance(survey.tests, Unseen)
        result = survey.tests[asset].model_copy(update=changed)
        return dataclasses.replace(survey, tests={**survey.tests, asset: result})

    return act


def host(**changed: object) -> Break:
    return lambda survey: with_host(survey, **changed)


def measured(asset: Asset, **changed: object) -> Break:
    def act(survey: Survey) -> Survey:
        assert not isinstance(survey.measured, Unseen)
        mark = survey.measured[asset].model_copy(update=changed)
        return dataclasses.replace(survey, measured={**survey.measured, asset: mark})

    return act


def no_receiver() -> Break:
    return host(receiver=Receiver(streaming=False))


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


def evidence(report: Report, name: str) -> str:
    return next(finding.evidence for finding in report.findings if finding.name == name)


def exposure(report: Report, scenario: str) -> float | None:
    return next(lost.seconds for lost in report.exposures if lost.scenario == scenario)


# --- exactly when, and what it rests on -----------------------------------------------------


@pytest.mark.parametrize(("hours_old", "status"), [(8.99, None), (9.01, FAIL)])
def test_a_backup_is_late_after_half_an_interval_more(hours_old: float, status) -> None:
    survey = in_both_tiers(Asset.DATABASE, hours_old * 60)(good_survey())
    assert red(look(survey)).get("database-backup-age") is status


def test_exposure_says_what_would_be_lost_in_each_scenario() -> None:
    report = look(good_survey())
    assert exposure(report, "database") == 0, "the receiver streams"
    assert exposure(report, "files") == 20 * 60
    assert exposure(report, "models") == 2 * 60, "looked at two minutes ago, and unchanged"
    assert exposure(report, "server") == 20 * 60, "the worst of all that the bucket has"
    afar = look(seen_from_s3())
    assert exposure(afar, "database") == 20, "as far as the bucket tells"


def test_whichever_copy_goes_furthest_counts() -> None:
    survey = both(no_receiver(), log(Tier.LOCAL, minutes_old=50))(good_survey())
    assert exposure(look(survey), "database") == 20, "the bucket is ahead of this host"


def test_a_suspicious_base_copy_is_passed_over() -> None:
    newest = a_store(Asset.DATABASE, Tier.S3).points
    assert not isinstance(newest, Unseen)
    points_ = (newest[0].model_copy(update={"suspicion": "half of the rows"}), *newest[1:])
    survey = seen_from_s3(store(Asset.DATABASE, Tier.S3, points=points_)(good_survey()))
    report = look(survey)
    assert red(report) == {"suspicious-points": FAIL, "database-backup-age": FAIL}
    assert name_of(Asset.DATABASE) not in evidence(report, "server-loss-exposure")
    assert exposure(report, "database") == 20, "the log goes on from the one before it"


def test_a_claim_from_before_a_recovery_is_not_taken_for_a_loss() -> None:
    """Until the shipper speaks again, what the bucket got last counts."""
    histories = {2: (Switch(1, 7 * SIZE + 100),)}
    whole = [*(Segment(1, n) for n in range(2, 7)), Segment(2, 7)]
    new = a_continuity(whole=whole, partial=[Segment(2, 8)], histories=histories)
    names = [s.name(SIZE) for s in whole] + [Segment(2, 8).name(SIZE) + ".partial"]
    young, old = (
        {"files": tuple(WalFile(n, SIZE, ago(seconds=s)) for n in names)} for s in (30, 400)
    )
    recovered = good_survey()
    assert red(look(log(Tier.S3, continuity=new, **young)(recovered))) == {}
    assert red(look(log(Tier.S3, continuity=new, **old)(recovered))) == {"wal-lag-s3": UNKNOWN}


def test_a_claim_from_the_future_is_worth_no_more_than_now() -> None:
    survey = sighting("models", as_of=NOW + timedelta(days=300))(good_survey())
    assert exposure(look(survey), "models") == 0
    assert all(age.seconds >= 0 for age in look(survey).backup_ages)


def test_recovery_time_adds_restore_replay_start_and_verification() -> None:
    report = look(good_survey())
    took = {e.scenario: e.seconds for e in report.estimates}
    # 1 GB at 50 MB/s; 4 segments behind the newest base copy at 0.5 s each; as rehearsed.
    assert took["database"] == pytest.approx(4 * 0.5 + 9)
    assert took["files"] == pytest.approx(20 + 9)
    assert took["server"] == pytest.approx(4 * 20 + 4 * 0.5 + 30)
    without = look(host(hot_copy=None)(good_survey()))
    took = {e.scenario: e.seconds for e in without.estimates}
    assert took["database"] == pytest.approx(20 + 4 * 0.5 + 9)


def test_without_a_rehearsal_the_time_says_what_it_leaves_out() -> None:
    report = look(field(rehearsals=())(good_survey()))
    assert report.good
    assert "start and verification not known" in evidence(report, "server-recovery-time")


def test_a_failed_test_is_good_again_when_a_later_one_passed() -> None:
    failed = result(Asset.FILES, passed=False, ended_at=ago(hours=30), error="x")(good_survey())
    assert red(look(failed)) == {}, "the point was verified twenty hours ago"


# --- what is excused ------------------------------------------------------------------------


def test_an_old_hole_and_old_wal_can_be_excused_by_name() -> None:
    gone = Segment(1, 3).name(SIZE)
    survey = both(
        log(Tier.LOCAL, continuity=a_continuity(gone=(3,), other_systems=["666"])),
        log(
            Tier.S3,
            continuity=a_continuity(whole=[*(Segment(1, n) for n in range(2, 8)), Segment(7, 5)]),
        ),
    )(good_survey())
    assert red(look(survey)) == {"wal-continuity-local": FAIL, "foreign-timeline": FAIL}
    assert gone in evidence(look(survey), "wal-continuity-local")
    excused = {gone: "the night of the 25th", "666": "before the upgrade", f"{SYSTEM}/7": "a test"}
    assert red(look(survey, excused=excused)) == {}


def test_a_hole_behind_the_newest_base_copy_can_not_be_excused() -> None:
    gone = Segment(1, 6).name(SIZE)
    survey = log(Tier.LOCAL, continuity=a_continuity(gone=(6,)))(good_survey())
    assert "wal-continuity-local" in red(look(survey, excused={gone: "why not"}))


def test_wal_of_a_cluster_that_has_base_copies_is_not_foreign() -> None:
    before = dataclasses.replace(a_base(9000, 2), system_identifier="555")
    upgraded = continuity.judge(
        [a_base(65, 5), before],
        whole=[Segment(1, n) for n in range(5, 9)],
        histories={},
        other_systems=["555"],
    )
    assert red(look(log(Tier.S3, continuity=upgraded)(good_survey()))) == {}


# --- seen from afar -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (None, None),
        (HostReport(at=ago(minutes=4), red={}), Status.PASS),
        (HostReport(at=ago(minutes=8), red={}), FAIL),
        (HostReport(at=ago(minutes=4), red={"free-space": "full in 2 days"}), FAIL),
        (AWAY, UNKNOWN),
    ],
)
def test_from_afar_the_host_has_to_look_at_itself_if_it_ever_did(report, status) -> None:
    found = look(seen_from_s3(host_report=report))
    assert next((f.status for f in found.findings if f.name == "host-watch"), None) is status
    assert found.good is (status in (None, Status.PASS))


def test_what_only_the_host_can_see_is_not_asked_from_afar() -> None:
    here = {finding.name for finding in look(good_survey()).findings}
    afar = {finding.name for finding in look(seen_from_s3()).findings}
    assert {name for name in here if only_on_host(name)} == here - afar


# --- the report -----------------------------------------------------------------------------


def test_a_report_survives_being_written_down() -> None:
    report = look(no_receiver()(good_survey()))
    again = Report.model_validate_json(report.model_dump_json())
    assert again == report
    assert not again.good
    assert again.worst_first[0].name == "wal-receiver"


def test_a_report_without_findings_is_not_good() -> None:
    assert not Report(platform="x", seen_from="s3", at=NOW, findings=()).good


def test_a_young_vault_has_no_forecast_and_an_old_one_has() -> None:
    report = look(in_both_tiers(Asset.FILES, 20)(good_survey()))
    assert "GB a day" in evidence(report, "free-space")
    young = good_survey()
    for asset in Asset:
        young = in_both_tiers(asset, 20)(young)
    assert "too young" in evidence(look(young), "free-space")


# --- nothing that can't be seen looks good, and nothing stops the look ------------------------

# Without them the estimate says what it leaves out.
_DISPENSABLE = {"rehearsals"}
_OF_SURVEY = ("measured", "tests", "sightings", "drills", "rehearsals", "certificates", "emptied")
_OF_HOST = (*("hot_copy", "receiver", "listing", "space", "places", "interrupted", "protection"),)


@pytest.mark.parametrize("name", (*_OF_SURVEY, *_OF_HOST))
def test_each_thing_that_can_not_be_seen_is_an_alarm(name: str) -> None:
    act = field(**{name: AWAY}) if name in _OF_SURVEY else host(**{name: AWAY})
    report = look(act(good_survey()))
    assert [f.name for f in report.findings] == [f.name for f in look(good_survey()).findings]
    assert report.good is (name in _DISPENSABLE)


def everything_unseen(survey: Survey) -> Survey:
    survey = dataclasses.replace(survey, **dict.fromkeys(_OF_SURVEY, AWAY))
    survey = with_host(survey, **dict.fromkeys(_OF_HOST, AWAY))
    gone = {"continuity": AWAY, "files": AWAY, "key": AWAY}
    for tier in (Tier.LOCAL, Tier.S3):
        survey = log(tier, **gone)(unseen_tier(tier, AWAY)(survey))
    return survey


@pytest.mark.parametrize("seen_from", ["host", "s3"])
def test_when_nothing_can_be_seen_nothing_is_green_that_has_to_be_seen(seen_from: str) -> None:
    survey = everything_unseen(good_survey())
    report = look(seen_from_s3(survey) if seen_from == "s3" else survey)
    green = {finding.name for finding in report.findings} - set(red(report))
    assert green == ({"host-verified"} if seen_from == "host" else set())
