"""When exactly something is late, what it rests on, what is excused, and what is seen from afar."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from lifeboat.core import continuity
from lifeboat.core.checks import Status
from lifeboat.core.objectives import Report, only_on_host
from lifeboat.core.points import Asset, Tier
from lifeboat.core.survey import (
    HostReport,
    Survey,
    Unseen,
    WalFile,
)
from lifeboat.core.wal import Segment, Switch
from tests.unit.objectives_breaks import (
    AWAY,
    FAIL,
    UNKNOWN,
    both,
    field,
    host,
    in_both_tiers,
    log,
    look,
    no_receiver,
    red,
    result,
    sighting,
    store,
    unseen_tier,
)
from tests.unit.objectives_fixtures import (
    NOW,
    SIZE,
    SYSTEM,
    a_base,
    a_continuity,
    a_point,
    a_store,
    ago,
    good_survey,
    name_of,
    seen_from_s3,
    with_host,
    with_store,
)


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


def test_a_point_from_the_future_does_not_hide_what_is_wrong_with_the_newest_one() -> None:
    for wrong in ("", "9 of 10 files are gone"):
        points = (
            a_point(Asset.FILES, Tier.S3, -60, suspicion="it is still to come"),
            a_point(Asset.FILES, Tier.S3, 20, suspicion=wrong),
        )
        store = dataclasses.replace(a_store(Asset.FILES, Tier.S3), points=points)
        names = red(look(with_store(good_survey(), store)))
        assert "clock" in names
        assert ("suspicious-points" in names) == bool(wrong)


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


def test_a_failed_test_is_not_made_good_by_a_recovery_from_this_host() -> None:
    """S3 has the point damaged; the copy on this host, which is whole, was used since."""
    failed = result(Asset.FILES, passed=False, ended_at=ago(hours=30), error="x")
    here = in_both_tiers(Asset.FILES, 20, verified_at=ago(hours=1), verified_here_only=True)
    assert red(look(both(failed, here)(good_survey()))) == {"restore-test": FAIL}
    never = both(field(tests={}), here)(good_survey())
    assert red(look(never)) == {"restore-test": UNKNOWN}


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


def test_a_certificate_that_may_end_or_comes_from_elsewhere_is_excused_by_its_path() -> None:
    ends = {"a.pem": ago(days=1), "/run/b.pem": NOW + timedelta(days=300)}
    survey = field(certificates=ends, certificates_elsewhere=("/run/b.pem",))(good_survey())
    assert "a.pem ended 24 h ago" in evidence(look(survey), "certificates")
    known = {"a.pem": "nobody uses it"}
    told = evidence(look(survey, excused=known), "certificates")
    assert told == "not backed up, for only a link to it is: /run/b.pem"
    assert red(look(survey, excused={**known, "/run/b.pem": "the proxy asks for it"})) == {}


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
