"""Decisions: which point, which cures, which verdict, and what a drill may call passed."""

from __future__ import annotations

import json
import pickle
from datetime import date, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from lifeboat.core import errors
from lifeboat.core.checks import CHECK_NAMES, CheckResult, Status, Verdict
from lifeboat.core.drill import DrillReport, Losses, ScenarioResult, measured_rpo_seconds
from lifeboat.core.errors import PreconditionError
from lifeboat.core.forms import RecoverDatabase, RecoverFiles
from lifeboat.core.ladder import DatabaseAssessment, Rung, choose_rungs
from lifeboat.core.points import (
    Asset,
    RecoveryPoint,
    Tier,
    choose_point,
    end_of_day,
    merge_copies,
    point_id,
    taken_at_of,
)
from lifeboat.core.timeline import Phase, StepRecord, outside_steps_seconds, phase_seconds
from lifeboat.tools import report, seal

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def point(hours: float, *tiers: Tier, asset: Asset = Asset.FILES) -> RecoveryPoint:
    taken_at = NOON + timedelta(hours=hours)
    copies = {tier: f"{tier}-{hours}" for tier in tiers or (Tier.LOCAL,)}
    return RecoveryPoint(
        asset=asset, id=point_id(asset, taken_at), taken_at=taken_at, copies=copies, bytes=10
    )


# --- recovery points ------------------------------------------------------------------------


def test_the_newest_point_is_chosen_and_a_moment_bounds_it() -> None:
    points = [point(-3), point(-1), point(-2), point(0, asset=Asset.MODELS)]
    assert choose_point(points, asset=Asset.FILES).taken_at == NOON - timedelta(hours=1)
    before = choose_point(points, asset=Asset.FILES, not_after=NOON - timedelta(hours=1.5))
    assert before.taken_at == NOON - timedelta(hours=2)


def test_a_moment_before_the_first_point_names_the_first_one() -> None:
    with pytest.raises(PreconditionError, match=r"first one was taken at 2026-01-31T11:00"):
        choose_point([point(-1)], asset=Asset.FILES, not_after=NOON - timedelta(days=1))


def test_only_the_tiers_that_are_asked_for_count() -> None:
    points = [point(-2, Tier.S3), point(-1, Tier.LOCAL)]
    assert choose_point(points, asset=Asset.FILES, tiers=(Tier.S3,)) == points[0]
    with pytest.raises(PreconditionError, match="none in hot"):
        choose_point(points, asset=Asset.FILES, tiers=(Tier.HOT,))


def test_copies_of_one_point_are_joined() -> None:
    [joined] = merge_copies([point(-1, Tier.S3), point(-1, Tier.LOCAL)])
    assert joined.tiers == (Tier.LOCAL, Tier.S3)


def test_a_day_ends_with_its_last_microsecond() -> None:
    assert end_of_day(date(2026, 1, 31)) < datetime(2026, 2, 1, tzinfo=timezone.utc)
    assert end_of_day(date(2026, 1, 31)).hour == 23


def test_a_name_tells_the_time() -> None:
    assert taken_at_of(point_id(Asset.DATABASE, NOON)) == NOON
    with pytest.raises(PreconditionError, match="points"):
        taken_at_of("latest")


# --- the ladder -----------------------------------------------------------------------------


def assessed(**changes) -> DatabaseAssessment:
    well = {"service_state": "stopped", "answers": False, "cluster_problems": ()}
    return DatabaseAssessment(**{**well, **changes})


ALL = (Tier.HOT, Tier.LOCAL, Tier.S3)


@pytest.mark.parametrize(
    ("assessment", "asked", "tried"),
    [
        (assessed(), {}, "restart hot local s3"),
        (assessed(cluster_problems=("it is not there",)), {}, "hot local s3"),
        (assessed(answers=True, block_problems="page 3"), {}, "hot local s3"),
        (assessed(), {"to_time": NOON}, "hot local s3"),
        (assessed(), {"only_from": Tier.LOCAL}, "hot local"),
        (assessed(), {"only_from": Tier.S3}, "s3"),
        (assessed(), {"allowed": (Rung.S3, Rung.RESTART)}, "restart s3"),
        (assessed(), {"tiers_with_a_point": (Tier.S3,)}, "restart s3"),
    ],
)
def test_cures_are_tried_cheapest_first_and_each_has_its_reason(assessment, asked, tried) -> None:
    choices = choose_rungs(assessment, **{"tiers_with_a_point": ALL, **asked})
    assert " ".join(choice.rung for choice in choices if choice.use) == tried
    assert [choice.rung for choice in choices] == list(Rung)
    assert all(choice.reason for choice in choices)


# --- requests -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00:00Z", "2026-01-31", "12:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        RecoverDatabase(to_time=text)


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31 12:00", "2026-01-31T13:00:00+01:00"]
)
def test_a_moment_without_a_zone_is_utc(text: str) -> None:
    assert RecoverDatabase(to_time=text).target_time == NOON


def test_a_date_means_the_whole_day() -> None:
    assert RecoverFiles(date="2026-01-31").not_after == end_of_day(date(2026, 1, 31))
    for wrong in ("2026-02-30", "31.1.2026", "latest"):
        with pytest.raises(ValidationError):
            RecoverFiles(date=wrong)


# --- verdicts -------------------------------------------------------------------------------


def results(**changes: Status) -> list[CheckResult]:
    return [
        CheckResult(
            name=name,
            status=changes.get(name.replace("-", "_"), Status.PASS),
            evidence="seen",
            seconds=0.1,
        )
        for name in CHECK_NAMES
    ]


def test_there_are_eighteen_checks_and_all_must_pass() -> None:
    assert len(CHECK_NAMES) == 18
    assert Verdict.of(results()).good


@pytest.mark.parametrize("status", [Status.FAIL, Status.UNKNOWN])
def test_unknown_never_counts_as_pass(status: Status) -> None:
    verdict = Verdict.of(results(search=status))
    assert not verdict.good
    assert verdict.passed == 17


def test_what_a_platform_has_not_got_counts_neither_way() -> None:
    verdict = Verdict.of(results(redis_reachable=Status.NONE))
    assert verdict.good
    assert (verdict.passed, verdict.total, verdict.not_passed) == (17, 17, ())
    nothing = [r.model_copy(update={"status": Status.NONE}) for r in results()]
    assert not Verdict.of(nothing).good, "nothing that was looked at proves nothing"


def test_a_check_without_a_result_is_unknown() -> None:
    verdict = Verdict.of(results()[1:])
    assert verdict.not_passed[0].name == CHECK_NAMES[0]
    assert verdict.not_passed[0].status is Status.UNKNOWN
    assert not Verdict(checks=()).good


# --- the clock ------------------------------------------------------------------------------


def a_step(began: float, ended: float, phase: Phase | None = None) -> StepRecord:
    return StepRecord(name="x", phase=phase, began_at=began, ended_at=ended, outcome="done")


def test_phases_that_overlap_are_counted_once_each() -> None:
    steps = [a_step(0, 4, Phase.FETCH), a_step(2, 5, Phase.FETCH), a_step(3, 6, Phase.RESTORE)]
    found = phase_seconds(steps)
    assert (found[Phase.FETCH], found[Phase.RESTORE], found[Phase.VERIFY]) == (5, 3, 0)


@pytest.mark.parametrize(
    ("steps", "outside"),
    [
        ([], 10),
        ([(0, 10)], 0),
        ([(1, 3), (2, 4), (6, 7)], 6),
        ([(-5, 1), (9, 20)], 8),  # what was done before and after does not count
        ([(20, 30)], 10),
    ],
)
def test_seconds_outside_the_steps(steps, outside) -> None:
    assert outside_steps_seconds(0, 10, [a_step(*span) for span in steps]) == outside


# --- the drill ------------------------------------------------------------------------------


def scenario(**changes) -> ScenarioResult:
    good = {
        "name": "files",
        "broken": "damage_files",
        "detected": True,
        "detected_by": ("user-data-intact",),
        "recovered": True,
        "rto_seconds": 12.0,
        "rpo_seconds": 0.0,
        "rows_lost": 0,
        "files_lost": 0,
        "acknowledged_rows": 10,
        "acknowledged_files": 5,
        "checks_passed": 18,
        "checks_total": 18,
        "checks": tuple(results()),
        "phases": phase_seconds([a_step(0, 4, Phase.FETCH)]),
        "outside_steps_seconds": 0.1,
    }
    return ScenarioResult(**{**good, **changes})


def drill(*scenarios: ScenarioResult) -> DrillReport:
    return DrillReport(
        id="drill-x",
        platform="cad",
        stack="process",
        began_at=NOON,
        ended_at=NOON + timedelta(minutes=3),
        objective_rto_seconds=14400,
        objective_rpo_seconds=3600,
        wal="synchronous",
        orchestrator="none",
        scenarios=scenarios,
    )


@pytest.mark.parametrize(
    "flaw",
    [{"recovered": False}, {"detected": False}, {"rto_seconds": 14401}, {"rpo_seconds": 3601}],
)
def test_one_flaw_and_the_drill_has_not_passed(flaw) -> None:
    assert drill(scenario()).passed
    assert not drill(scenario(), scenario(**flaw)).passed
    assert not drill().passed


def test_the_report_keeps_its_contract() -> None:
    told = json.loads(drill(scenario()).model_dump_json())
    [found] = told["scenarios"]
    assert told["passed"] is True
    assert {
        *("name", "recovered", "rto_seconds", "rpo_seconds", "rows_lost", "files_lost"),
        *("checks_passed", "checks_total", "phases", "outside_steps_seconds"),
    } <= set(found)
    phases = {"detect", "decide", "fetch", "restore", "replay", "start", "verify"}
    assert set(found["phases"]) == phases
    assert set(found["checks"][0]) == {"name", "status", "evidence", "seconds"}


def test_the_oldest_lost_write_is_the_measure() -> None:
    nothing = Losses(acknowledged_rows=5, acknowledged_files=0, rows_lost=0, files_lost=0)
    assert measured_rpo_seconds(broken_at=100.0, losses=nothing) == 0
    some = nothing.model_copy(update={"rows_lost": 1, "oldest_lost_at": 90.0})
    assert measured_rpo_seconds(broken_at=100.0, losses=some) == 10


def test_a_page_that_failed_does_not_look_passed_and_fetches_nothing() -> None:
    evil = CheckResult(
        name="search", status=Status.UNKNOWN, evidence="<script>alert(1)</script>", seconds=0
    )
    bad = scenario(recovered=False, checks=(evil,), checks_passed=0, error="it <broke>", name="x")
    page = report.render_html(drill(scenario(), bad))
    assert "NOT passed" in page
    assert "NOT recovered" in page
    assert "<script>" not in page
    assert "it &lt;broke&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "NOT passed" not in report.render_html(drill(scenario()))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (200, "3 min 20 s"), (14400, "4 h")],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert report.seconds_in_words(seconds) == words


# --- errors and seals -----------------------------------------------------------------------


def test_every_error_survives_the_border_of_a_process() -> None:
    for name in dir(errors):
        kind = getattr(errors, name)
        if not (isinstance(kind, type) and issubclass(kind, errors.RecoveryError)):
            continue
        made = (
            kind("pg_dump", 3, "tail", doing="Dumping", hint="Look.")
            if issubclass(kind, errors.CommandFailed)
            else kind("It broke.", hint="Look.")
        )
        again = pickle.loads(pickle.dumps(made))
        assert (type(again), str(again), vars(again)) == (kind, str(made), vars(made))
        assert str(again).endswith("Look.")
        assert f" {name} " in f" {errors.__doc__} ".replace("\n", " "), "the tree names it"


def test_what_is_sealed_opens_with_its_key_only() -> None:
    identity, recipient = seal.new_identity()
    sealed = seal.seal(b"wal" * 1000, recipient)
    assert len(sealed) < 1000
    assert seal.unseal(sealed, identity) == b"wal" * 1000
    damaged = bytearray(sealed)
    damaged[len(sealed) // 2] ^= 1
    for data, key in ((bytes(damaged), identity), (sealed[:-5], identity)):
        with pytest.raises(errors.VerificationFailed):
            seal.unseal(data, key)
    with pytest.raises(errors.VerificationFailed):
        seal.unseal(sealed, seal.new_identity()[0])
