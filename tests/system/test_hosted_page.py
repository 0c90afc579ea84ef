"""A hosted status page, told over HTTP what a recovery does; dead, it is told later and no recovery
waits for it.
"""

from __future__ import annotations

import time

import pytest

from lifeboat.core.incident import State
from tasks.people import incidents
from tests.system import receivers
from tests.system.test_incidents import a_recovery

pytestmark = [pytest.mark.system]

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def _provider():
    with receivers.status_provider() as provider:
        yield provider


@pytest.fixture
def provider(_provider, monkeypatch):
    _provider.incidents.clear()
    _provider.components = {"web": "operational", "data": "operational"}
    monkeypatch.setenv("STATUSPAGE_TOKEN", _provider.token)
    return _provider


def with_page(host, provider, *, api: str = "", page: str = "", people: bool = True) -> None:
    host.write_yaml(
        sections=f"""\
communication: {{drill_to_people: {str(people).lower()}}}
status_page:
  hosted:
    api: {api or provider.api}
    page: {page or provider.page}
    components: {{postgres: data}}
"""
    )


def statuses(incident: dict) -> list[str]:
    return [update["status"] for update in reversed(incident["incident_updates"])]


def test_it_is_told_each_step_once_and_no_secret_is_kept(host, provider) -> None:
    with_page(host, provider)
    with a_recovery(host.settings):
        pass
    [told] = provider.incidents
    assert told["name"] == "Some files not available (an exercise)"
    assert statuses(told) == ["investigating", "identified", "monitoring"]
    [found] = incidents.list_incidents(host.settings)
    assert told["metadata"]["lifeboat"]["incident"] == found.id
    assert {m.channel for m in found.messages if m.to == "hosted status page"} == {
        "hosted status page"
    }

    host.run("incident", "close", "looked back", "--by", "Ada")
    assert statuses(told) == ["investigating", "identified", "monitoring", "resolved"]
    host.run("status-page")
    assert len(provider.incidents) == 1
    assert len(told["incident_updates"]) == 4
    text = (incidents.directory(host.settings) / found.id / incidents.FILE_NAME).read_text()
    assert provider.token not in text


def test_a_drill_is_not_shown_to_customers(host, provider) -> None:
    with_page(host, provider, people=False)
    with a_recovery(host.settings):
        pass
    assert provider.incidents == []


def test_a_page_that_is_away_stops_nothing_and_catches_up(host, provider) -> None:
    with_page(host, provider, api=NOBODY)
    began = time.monotonic()
    with a_recovery(host.settings) as run:
        pass
    assert run.record.outcome == "done"
    assert time.monotonic() - began < 20
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.RECOVERED
    [missed] = found.not_reached
    assert missed.to == "hosted status page" and "does not answer" in str(missed.not_taken)
    assert "NOT REACHED: hosted status page" in host.run("incident", "show", found.id).stdout

    with_page(host, provider)
    host.run("status-page")
    [told] = provider.incidents
    assert statuses(told) == ["investigating", "identified", "monitoring"]
    incidents_before = incidents.list_incidents(host.settings)[0].not_reached

    # Away again: what it has is not called missed, and the end that it misses is.
    with_page(host, provider, api=NOBODY)
    host.run("status-page", ok=4)
    assert incidents.list_incidents(host.settings)[0].not_reached == incidents_before
    host.run("incident", "close", "looked back", "--by", "Ada")
    assert len(incidents.list_incidents(host.settings)[0].not_reached) == len(incidents_before) + 1


@pytest.mark.parametrize(
    ("change", "advice"),
    [({"token": "wrong"}, "status_page.hosted.token"), ({"page": "another"}, "hosted.page")],
)
def test_what_is_refused_says_what_to_look_at(host, provider, monkeypatch, change, advice) -> None:
    if "token" in change:
        monkeypatch.setenv("STATUSPAGE_TOKEN", change["token"])
    with_page(host, provider, page=change.get("page", ""))
    host.run("incident", "open", "Search finds nothing")
    refused = host.run("status-page", ok=4).stderr
    assert advice in refused
    assert "wrong" not in refused
