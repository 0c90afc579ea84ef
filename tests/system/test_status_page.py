"""The status page and the report of a recovery, looked at in a browser and against its record."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.core.incident import Event, EventKind
from lifeboat.core.timeline import Outcome, RungAttempt
from tasks import clock, places, recovery
from tasks.people import incidents
from tests.system import browser, sample_pages

pytestmark = [pytest.mark.system]

ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture
def closed(host):
    web = host.root / "web"
    web.mkdir()
    host.write_yaml(
        sections="status_page: {enabled: true, title: <CAD> & more, web_roots: [web]}\n"
    )
    settings = host.settings
    with recovery.recovery(settings, "recover-files") as run:
        run.tell(
            "planned",
            symptoms="2 of 9 files are damaged",
            target="newest",
            expected_loss="nothing is lost",
            expected_seconds=12.0,
        )
        run.fact(approved_by="Ada", approved_because="it is | down")
        run.rung(RungAttempt(rung="local-vault", outcome=Outcome.DONE, reason="it <held>"))
    [found] = incidents.list_incidents(settings)
    event = Event(at=clock.now(), kind=EventKind.CLOSED, by="Ada", text="looked back")
    incidents.append(settings, found.id, event)
    return settings, web, incidents.find(settings, found.id), run.record


def test_page_feed_and_report_agree_with_the_record(closed) -> None:
    settings, web, incident, record = closed
    page, feed = (web / "index.html").read_text(), (web / "feed.xml").read_text()
    bucket = places.bucket(settings)
    assert bucket.get("status/index.html").decode() == page
    assert bucket.get("status/feed.xml").decode() == feed
    assert "State not known" in page  # nothing runs there, and nobody can look
    assert "operational</b>" not in page
    for private in ("Ada", "local-vault", "damaged", record.id):
        assert private not in page + feed
    [entry] = xml.fromstring(feed).findall(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}id") == f"urn:lifeboat:incident:{incident.id}"

    directory = incidents.directory(settings) / incident.id
    for name in ("report.md", "report.html"):
        report = (directory / name).read_text()
        assert bucket.get(incidents.key(incident.id, name)).decode() == report
        assert record.id in report and "Data lost (RPO)" in report and "not measured" in report
    text = (directory / "report.md").read_text()
    assert "**to fill in:** root cause" in text and "it is \\| down" in text
    assert "it <held>" not in (directory / "report.html").read_text()


def test_a_command_that_closes_an_incident_writes_page_and_report_too(host) -> None:
    host.write_yaml(sections="status_page: {enabled: true, web_roots: []}\n")
    host.run("incident", "open", "Search finds nothing", "--severity", "major")
    host.run("incident", "close", "The index was made anew", "--by", "Ada")
    [incident] = incidents.list_incidents(host.settings)
    directory = incidents.directory(host.settings) / incident.id
    text = (directory / "report.md").read_text()
    assert "The index was made anew" in text
    # Nobody recovered anything, and all the same there is something to look back at.
    assert "Conduct the post-incident review" in text
    assert incident.id.encode() in places.bucket(host.settings).get("status/feed.xml")


def test_a_web_root_that_is_not_there_is_told_and_the_bucket_gets_the_page(host) -> None:
    host.write_yaml(sections="status_page: {enabled: true, web_roots: [nowhere]}\n")
    done = host.run("status-page", ok=4)
    assert "nowhere" in done.stderr
    assert b"State not known" in places.bucket(host.settings).get("status/index.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.opened(tmp_path_factory.mktemp("browser"), password="none") as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", sample_pages.PAGES)
def test_a_browser_shows_each_page_without_scrolling_sideways(
    page: browser.Page, tmp_path: Path, name: str, width: int
) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(sample_pages.PAGES[name]())
    shades = []
    for scheme in ("light", "dark"):
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=media)
        page.go(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Nothing is cut off that cannot be scrolled to either.
        cut = "[...document.querySelectorAll('td, th, li, p, h1, h2, b')].filter(e => {"
        cut += " const r = e.getBoundingClientRect(); return r.width && r.right > innerWidth + 1;"
        cut += " }).map(e => e.innerText.slice(0, 40))"
        assert page.evaluate(cut) == []
        shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.picture(f"status-{name}-{width}-{scheme}")
    assert shades[0] != shades[1], "it can be read in the dark"
