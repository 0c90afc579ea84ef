"""The readiness page's model: the answer, the figures, and what is said to be not known."""

from __future__ import annotations

import dataclasses

import pytest

from lifeboat.core.checks import Status
from lifeboat.core.drill import DrillOnRecord
from lifeboat.core.points import Asset, Tier
from lifeboat.core.survey import Unseen
from lifeboat.core.timeline import Outcome, Phase
from lifeboat.tools import readiness_page
from tests.unit.objectives_fixtures import a_store, good_survey
from tests.unit.readiness_fixtures import a_drill, a_recovery, the_page


def test_yes_if_every_scenario_is_within_both_objectives() -> None:
    found = the_page()
    assert found.status is Status.PASS
    assert found.good
    assert found.in_words() == "Yes, and 3 follow-ups are overdue."
    assert the_page(follow_ups=()).in_words().startswith("Yes. Every scenario")
    assert [now.scenario for now in found.scenarios] == ["database", "server", "files", "models"]
    assert all(now.back_seconds and now.back_why for now in found.scenarios)


def _without(asset: Asset):
    survey = good_survey()
    stores = tuple(
        a_store(asset, store.tier, 900.0) if store.asset is asset else store
        for store in survey.stores
    )
    sightings = {name: seen for name, seen in survey.sightings.items() if name != asset}
    return dataclasses.replace(survey, stores=stores, sightings=sightings)


def test_no_if_one_would_lose_too_much_and_it_is_named() -> None:
    found = the_page(_without(Asset.FILES))
    assert found.status is Status.FAIL
    assert "File storage corruption" in found.in_words()
    assert "AI model loss" not in found.in_words()
    [files] = [now for now in found.scenarios if now.scenario == "files"]
    assert files.lost_seconds == 900 * 60
    assert files.lost_status is Status.FAIL and files.back_status is Status.PASS


def test_perhaps_if_something_was_never_measured_or_can_not_be_seen() -> None:
    never = dataclasses.replace(good_survey(), measured={})
    found = the_page(never, restores={})
    assert found.status is Status.UNKNOWN
    assert found.in_words().startswith("Perhaps.")
    assert all(now.back_seconds is None for now in found.scenarios)
    away = dataclasses.replace(
        good_survey(),
        stores=tuple(
            dataclasses.replace(s, points=Unseen("away"), parts=Unseen("away"))
            for s in good_survey().stores
        ),
    )
    assert the_page(away).status is not Status.PASS


def test_a_yes_tells_of_what_else_needs_somebody() -> None:
    listing = Unseen("it was not tried")
    survey = good_survey()
    assert survey.host
    survey = dataclasses.replace(survey, host=dataclasses.replace(survey.host, listing=listing))
    found = the_page(survey)
    assert found.status is Status.PASS and not found.good
    assert "1 of" in found.in_words()


def test_measured_are_drills_and_recoveries_in_order_and_nothing_else() -> None:
    found = the_page(
        recoveries=[
            a_recovery(),
            a_recovery(id="x-1", facts={"dry_run": True}),
            a_recovery(id="x-2", outcome=Outcome.NOT_APPROVED),
            a_recovery(id="x-3", ended_at=None),
            a_recovery(id="x-4", procedure="recover-bucket"),
            a_recovery(id="x-5", good=False),
        ]
    )
    ours = [m for m in found.measured if m.how == "in earnest"]
    assert [(m.by, m.passed) for m in ours] == [
        ("recover-database-20260529T120000Z-4f2a", True),
        ("x-5", False),
    ]
    assert (ours[0].seconds, ours[0].phases[Phase.RESTORE]) == (14.0, 8.0)
    assert [m.at for m in found.measured] == sorted(m.at for m in found.measured)
    assert len(found.of("database")) == 12  # ten drills, two recoveries


def test_a_drill_of_an_older_lifeboat_has_two_phases_and_the_rest_is_in_between() -> None:
    told = a_drill(0, 1).model_dump(mode="json")
    for scenario in told["scenarios"]:
        del scenario["phases"]
    [old, *_] = the_page(drills=[DrillOnRecord.model_validate(told)], recoveries=[]).measured
    assert old.phases == {Phase.START: 2, Phase.VERIFY: 3}
    parts = readiness_page._parts(old)
    assert [name for name, _, _ in parts] == ["start", "verify", "other"]
    assert sum(percent for _, _, percent in parts) == pytest.approx(100)


def test_what_is_not_there_is_said_and_nothing_is_made_up() -> None:
    found = the_page(
        dataclasses.replace(good_survey(), tests={}, measured={}),
        drills=[],
        recoveries=[],
        tests={},
        restores={},
        follow_ups=[],
        standings=[],
        certificates={},
        contacts=[],
        unseen={"reviews": "the bucket is away"},
    )
    told = " ".join(found.gaps)
    assert "Reviews: the bucket is away" in told
    assert "No drill and no recovery is on record of: Database server failure, Complete" in told
    assert "nobody to call" in told and "No certificate" in told
    page = readiness_page.render_html(found)
    for words in ("None is on record.", "not known", "none on record", "not measured", "Nobody:"):
        assert words in page


def test_the_newest_copy_of_each_tier_is_shown() -> None:
    [database] = [a for a in the_page().assets if a.asset is Asset.DATABASE]
    assert database.age_s3_seconds == 65 * 60
    assert database.age_here_seconds is not None
    gone = good_survey()
    gone = dataclasses.replace(gone, stores=tuple(s for s in gone.stores if s.tier is Tier.S3))
    [files] = [a for a in the_page(gone).assets if a.asset is Asset.FILES]
    assert files.age_here_seconds is None and files.age_s3_seconds


def test_what_is_written_by_others_is_shown_as_text() -> None:
    found = the_page(unseen={"x": "<script>alert(1)</script>"})
    page = readiness_page.render_html(found)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
