"""What people are told: news once, again after a while, and when it is good."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from lifeboat.core.notices import Known, Notice, Severity, Trouble, make_notice
from lifeboat.settings import Channel

NOW = datetime(2026, 3, 1, 3, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def notice(
    *subjects: str, known: dict[str, Known] | None = None, status: str = "FAIL", now: datetime = NOW
) -> Notice | None:
    known = known or {}
    troubles = {
        name: Trouble(subject=name, status=status, evidence=f"{name} is bad", advice="Mend it.")
        for name in subjects
    }
    return make_notice("cad", troubles, known, judged=frozenset(known), again_after=DAY, now=now)


def told(*subjects: str, ago: timedelta = timedelta(0), status: str = "FAIL") -> dict[str, Known]:
    return {name: Known(status=status, told_at=NOW - ago) for name in subjects}


def test_nothing_is_said_where_all_is_good() -> None:
    assert notice() is None


def test_news_is_told_with_what_to_do() -> None:
    made = notice("wal-lag")
    assert made and made.severity is Severity.ALARM
    assert made.title == "cad: not protected as it should be: wal-lag"
    assert made.body == "FAIL wal-lag: wal-lag is bad\n  -> Mend it."
    assert made.known == told("wal-lag")


def test_what_was_told_is_not_told_twice_and_again_after_a_day() -> None:
    assert notice("wal-lag", known=told("wal-lag", ago=timedelta(hours=23))) is None
    again = notice("wal-lag", known=told("wal-lag", ago=DAY))
    assert again and again.known == told("wal-lag")


def test_what_becomes_worse_is_told_at_once() -> None:
    assert notice("wal-lag", known=told("wal-lag", status="UNKNOWN"))


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    assert notice("wal-lag", known=told("wal-lag", ago=-timedelta(days=300)))


def test_what_is_good_again_is_told_once() -> None:
    made = notice(known=told("wal-lag", "free-space"))
    assert made and made.severity is Severity.GOOD
    assert made.title == "cad: good again: free-space, wal-lag"
    assert made.known == {}


def test_news_names_what_was_told_before_and_what_is_good_again() -> None:
    made = notice("a", "b", known=told("b", "c"))
    assert made and made.title == "cad: not protected as it should be: a"
    assert "Told before, and not good yet: b" in made.body
    assert "Good again: c" in made.body
    assert made.known.keys() == {"a", "b"}


def test_of_what_was_not_looked_at_nothing_is_said() -> None:
    made = make_notice(
        "cad", {}, told("run-backup-files"), judged=frozenset(), again_after=DAY, now=NOW
    )
    assert made is None


def test_a_long_list_is_counted_in_the_title() -> None:
    made = notice("a", "b", "c", "d", "e")
    assert made and made.title.endswith(": a, b, c and 2 more")


@pytest.mark.parametrize(
    "url",
    ["mailtos://ops:secret@mail.example?to=a@b.c", "json://u:p@h", "mail.example", "http://["],
)
def test_an_address_with_a_password_in_clear_or_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Channel(name="mail", url=url)


@pytest.mark.parametrize("url", ["mailtos://ops:${MAIL}@h?to=a@b.c", "json://h/x"])
def test_an_address_with_its_secret_by_name_is_taken(url: str) -> None:
    assert Channel(name="mail", url=url)
