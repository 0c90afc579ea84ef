"""How much data time a recovery lost at most, and how that is told beside the objectives."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core import data_loss
from lifeboat.core.checks import CheckResult, Status
from lifeboat.core.data_loss import Until
from lifeboat.core.incident_report import checks_in_words, rpo_in_words, rto_in_words
from lifeboat.core.points import Asset

BEGAN = datetime(2026, 11, 26, 3, 15, tzinfo=timezone.utc)


def of(*minutes_before: float | None, chosen: bool = False, files_lost: int = 0) -> dict:
    facts: dict = {"wal": "asynchronous", "files_lost": files_lost}
    for asset, minutes in zip(Asset, minutes_before, strict=False):
        moment = None if minutes is None else BEGAN - timedelta(minutes=minutes)
        facts |= Until(asset=asset, moment=moment, because="why", chosen=chosen).as_facts()
    return data_loss.figures(facts, began_at=BEGAN)


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [((None,), 0), ((None, 5), 300), ((2, 90, None), 5400), ((-3,), 0)],
)
def test_the_worst_asset_counts_and_nobody_loses_the_future(minutes, seconds) -> None:
    assert of(*minutes)["lost_at_most_seconds"] == seconds


def test_what_said_nothing_is_not_called_good() -> None:
    assert data_loss.figures({"wal": "synchronous"}, began_at=BEGAN) == {}
    assert rpo_in_words({}, 3600) == "not measured (objective: 3600 s)"


def test_what_is_on_record_reads_back() -> None:
    told = [
        Until(asset=Asset.DATABASE, moment=None, because="its own log"),
        Until(asset=Asset.FILES, moment=BEGAN, because="a date", chosen=True),
    ]
    facts: dict = {}
    for one in told:
        facts |= one.as_facts()
    assert list(data_loss.of_facts(facts)) == told


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (of(None), "nothing (objective 3600 s: kept)"),
        (of(5), "at most 300.0 s (objective 3600 s: kept)"),
        (of(90), "at most 5400.0 s (objective 3600 s: NOT shown to be kept)"),
        (of(90, chosen=True), "5400.0 s, as was asked for"),
        ({**of(90), "rpo_seconds": 0.0}, "0.0 s (objective 3600 s: kept)"),
        ({**of(5), "rpo_seconds": 3700.0}, "3700.0 s (objective 3600 s: NOT kept)"),
        (of(-3, files_lost=2), "gone for good: 2 files; besides: nothing"),
        (of(files_lost=2), "gone for good: 2 files; besides: not measured"),
    ],
)
def test_the_verdict_says_what_is_known(figures, told: str) -> None:
    assert rpo_in_words(figures, 3600).startswith(told)


def test_the_time_it_took_has_a_verdict() -> None:
    assert "(objective 60 s: kept)" in rto_in_words({"rto_seconds": 59.9}, 60)
    assert "(objective 60 s: NOT kept)" in rto_in_words({"rto_seconds": 60.1}, 60)


def test_checks_that_did_not_pass_are_named_with_their_evidence() -> None:
    checks = [
        CheckResult(name="search", status=Status.FAIL, evidence="503", seconds=1),
        CheckResult(name="disk-space", status=Status.UNKNOWN, evidence="hangs", seconds=1),
        CheckResult(name="cpu-normal", status=Status.PASS, evidence="2 %", seconds=1),
    ]
    figures = {
        "checks_passed": 1,
        "checks_total": 3,
        "checks": [check.model_dump(mode="json") for check in checks],
    }
    told = checks_in_words(figures)
    assert told == "1 of 3 passed; not: search FAIL (503), disk-space UNKNOWN (hangs)"
    assert checks_in_words({}) == ""
