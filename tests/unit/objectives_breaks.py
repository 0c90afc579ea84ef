"""Ways to break a survey on which everything is good, in one place at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lifeboat.core.checks import Status
from lifeboat.core.objectives import Report, judge
from lifeboat.core.points import Asset, Tier
from lifeboat.core.survey import (
    Parts,
    Receiver,
    Store,
    Survey,
    Unseen,
)
from tests.unit.objectives_fixtures import (
    LIMITS,
    NOW,
    a_log,
    a_store,
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
