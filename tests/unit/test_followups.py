"""Follow-ups: dated from the recovery, worked out of lines that are only ever added to."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core import followups
from lifeboat.core.followups import ACTIONS, Event, Horizon

NOW = datetime(2026, 6, 1, 3, 0, tzinfo=timezone.utc)
SOURCE = "recover-database-20260601T025900Z-4f2a"
PLAN = {
    Horizon.IMMEDIATE: ["Monitor", "Review logs", "Update monitoring alerts", "Document lessons"],
    Horizon.SHORT: [
        "Conduct the post-incident",
        "Update the disaster",
        "Test backup",
        "Review mon",
    ],
    Horizon.LONG: ["Implement prev", "Update the disaster", "Conduct a disaster", "Review and upd"],
}


def opened(**more: object) -> tuple[Event, ...]:
    return followups.opened(SOURCE, NOW, **more)


def test_the_plans_three_lists_are_opened_in_its_order_and_dated() -> None:
    found = followups.states(opened())
    for horizon, begins in PLAN.items():
        titles = [one.title for one in found if one.horizon is horizon]
        assert len(titles) == len(begins)
        assert all(t.startswith(b) for t, b in zip(titles, begins, strict=True)), titles
    hours = {one.name: (one.due_at - NOW) / timedelta(hours=1) for one in found}
    assert (hours["review-logs"], hours["hold-review"], hours["hold-drill"]) == (24, 168, 672)
    assert len({one.id for one in found}) == len(found) == 12
    assert all(one.id.endswith("-4f2a") and one.how and one.owner for one in found)


def test_owners_are_named_by_action_before_role_and_some_are_left_out() -> None:
    owners = {"Technical Team": "Backend Lead", "hold-drill": "Database Admin"}
    found = {
        one.name: one.owner
        for one in followups.states(opened(owners=owners, without=["update-plan"]))
    }
    assert found["hold-drill"] == "Database Admin"
    assert found["review-logs"] == "Backend Lead"
    assert found["hold-review"] == "Incident Commander"
    assert "update-plan" not in found


def an_event(event: str, *, hours: float = 1, name: str = "review-logs", **more: object) -> Event:
    at = NOW + timedelta(hours=hours)
    return Event(at=at, follow_up=f"{name}-4f2a", event=event, by="ann", **more)


@pytest.mark.parametrize(
    ("hours", "status"),
    [(0, "open"), (19.1, "open"), (19.3, "due"), (23.9, "due"), (24, "overdue"), (900, "overdue")],
)
def test_it_is_due_in_the_last_fifth_and_then_overdue(hours: float, status: str) -> None:
    [one] = [f for f in followups.states(opened()) if f.name == "review-logs"]
    assert one.status(NOW + timedelta(hours=hours)) == status


def test_what_is_put_off_is_quiet_until_then_and_overdue_after_it() -> None:
    until = NOW + timedelta(hours=100)
    events = (*opened(), an_event("snoozed", until=until))
    [one] = [f for f in followups.states(events) if f.name == "review-logs"]
    assert one.status(until - timedelta(minutes=1)) == "open"
    assert one.status(until) == "overdue"


def test_lines_tell_what_became_of_it_and_the_last_word_counts() -> None:
    events = (
        *opened(),
        an_event("assigned", owner="Bea"),
        an_event("noted", note="half way"),
        an_event("done", hours=2, note="looked at all of them"),
    )
    [one] = [f for f in followups.states(events) if f.name == "review-logs"]
    assert (one.owner, one.done_by, one.notes) == (
        "Bea",
        "ann",
        ("half way", "looked at all of them"),
    )
    assert one.status(NOW + timedelta(days=99)) == "done"
    [again] = [
        f
        for f in followups.states((*events, an_event("reopened", hours=3)))
        if f.name == "review-logs"
    ]
    assert again.status(NOW + timedelta(days=99)) == "overdue"
    assert not again.done_by


def test_a_line_that_a_crash_cut_short_is_counted_and_the_rest_is_read() -> None:
    lines = [event.model_dump_json(exclude_defaults=True) for event in opened()]
    events, damaged = followups.parse_lines([*lines, lines[0][:40], "", '{"at": 1}'])
    assert damaged == 2
    assert followups.states(events) == followups.states(opened())


def test_events_about_unknown_or_opened_twice_change_nothing() -> None:
    events = (*opened(), an_event("done", name="nothing"), *opened())
    assert followups.states(events) == followups.states(opened())


def test_a_beginning_means_what_is_open_and_a_whole_name_also_what_is_done() -> None:
    found = followups.states((*opened(), an_event("done")))
    assert [f.id for f in followups.matching(found, "review-")] == [
        "review-coverage-4f2a",
        "review-objectives-4f2a",
    ]
    assert followups.matching(found, "review-logs-4f2a")[0].is_done
    assert followups.matching(found, "zzz") == ()


def test_the_most_urgent_comes_first_and_what_is_done_last() -> None:
    found = followups.by_urgency(followups.states((*opened(), an_event("done"))), NOW)
    assert found[0].horizon is Horizon.IMMEDIATE
    assert found[-1].name == "review-logs"
    assert [f.wanted_at for f in found[:-1]] == sorted(f.wanted_at for f in found[:-1])


def test_every_action_says_how_and_machines_do_what_they_can() -> None:
    by_machine = {action.name for action in ACTIONS if action.by_machine}
    assert by_machine == {
        "monitor-stability",
        "review-logs",
        "test-backup-integrity",
        "hold-drill",
    }
