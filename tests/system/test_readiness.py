"""The readiness page in a real browser, and of a host with a real vault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.core.points import Asset
from lifeboat.tools import readiness_page
from lifeboat.tools.readiness_page import _seconds
from tasks import places
from tests.system import browser
from tests.unit.objectives_fixtures import good_survey
from tests.unit.readiness_fixtures import the_page

pytestmark = [pytest.mark.system]

DESKTOP, PHONE = (1280, 900), (390, 844)
NEVER = dataclasses.replace(good_survey(), tests={}, measured={}, sightings={})
PAGES = {
    "good": the_page(),
    "bare": the_page(
        NEVER,
        drills=[],
        recoveries=[],
        tests={},
        restores={},
        follow_ups=[],
        standings=[],
        certificates={
            "a/very/long/path/" + "of-a-certificate/" * 12 + "x.pem": NEVER.drills[0].ended_at
        },
        contacts=[],
        unseen={"reviews": "x" * 300},
    ),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.opened(tmp_path_factory.mktemp("browser"), password="") as opened:
        opened.call("Runtime.enable")
        # What goes wrong in a page is kept where it can be asked for.
        opened.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.wrong = []; for (const kind of ['error', 'securitypolicyviolation'])"
            " addEventListener(kind, e => wrong.push(e.message || e.type), true);"
            "console.error = (...told) => wrong.push(told.join(' '));",
        )
        yield opened


def show(page: browser.Page, file: Path, size: tuple[int, int], *, dark: bool = False) -> None:
    width, height = size
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 600,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])
    page.go(file.as_uri())


def texts(page: browser.Page, selector: str) -> list[str]:
    told = f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText.trim())"
    return page.evaluate(told)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_it_fits_says_what_the_model_says_and_needs_nothing_else(
    page: browser.Page, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    found = PAGES[name]
    file = tmp_path / "readiness.html"
    file.write_text(readiness_page.render_html(found))
    show(page, file, size)

    assert page.evaluate("wrong") == []
    loaded = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert [url for url in loaded if not url.startswith("data:")] == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= size[0], f"it scrolls sideways: {wide} px"
    # Also what is folded away fits.
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]

    assert texts(page, "#answer") == [found.in_words()]
    for now in found.scenarios:
        box = f"[data-scenario={now.scenario}]"
        lost = "nothing" if now.lost_seconds == 0 else "not known"
        if now.lost_seconds:
            lost = _seconds(now.lost_seconds)
        assert texts(page, f"{box} [data-figure=lost]") == [lost]
        back = "not known" if now.back_seconds is None else _seconds(now.back_seconds)
        assert texts(page, f"{box} [data-figure=back]") == [back]
        bars = page.evaluate(
            f"[...document.querySelectorAll('[data-measured={now.scenario}] [data-by]')].map(e =>"
            " [e.dataset.by, e.className === 'failed',"
            " e.querySelector('.stack').getBoundingClientRect().height])"
        )
        ours = found.of(now.scenario)
        assert [(by, failed) for by, failed, _ in bars] == [(m.by, not m.passed) for m in ours]
        if ours:
            # A bar is as high as its recovery took long, by the pixel.
            highest, longest = max(h for _, _, h in bars), max(m.seconds for m in ours)
            assert highest > 60
            for (_, _, height), measured in zip(bars, ours, strict=True):
                assert height == pytest.approx(highest * measured.seconds / longest, abs=1.5)
    assert len(texts(page, "[data-asset]")) == len(Asset)
    assert len(texts(page, "[data-finding]")) == len(found.red)
    assert len(texts(page, "[data-follow-up]")) == len(found.follow_ups)
    assert len(texts(page, "[data-review]")) == len(found.reviews)
    assert len(texts(page, "[data-person]")) == len(found.people)
    assert texts(page, "#gaps li") == list(found.gaps)


def test_it_can_be_read_in_the_dark(page: browser.Page, tmp_path: Path) -> None:
    file = tmp_path / "readiness.html"
    file.write_text(readiness_page.render_html(PAGES["good"]))
    shades = []
    for dark in (False, True):
        show(page, file, PHONE, dark=dark)
        shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        pairs = page.evaluate(
            "[...document.querySelectorAll('.good, .bad, .warn, .soft, td, th, p')].map(e => {"
            " let b = e; const none = 'rgba(0, 0, 0, 0)';"
            " while (b && getComputedStyle(b).backgroundColor === none) b = b.parentElement;"
            " return [getComputedStyle(e).color,"
            " getComputedStyle(b || document.body).backgroundColor]; })"
        )
        assert pairs
        for ink, paper in {tuple(pair) for pair in pairs}:
            assert contrast(ink, paper) >= 4.5, (dark, ink, paper)
    assert shades[0] != shades[1]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG 2 has it."""

    def light(colour: str) -> float:
        parts = [int(p) / 255 for p in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_it_is_written_where_it_survives_and_is_shown_by_a_browser(host) -> None:
    done = host.run("readiness", ok=4)  # there is no platform, and no backup
    page = host.root / "backups/records/readiness.html"
    assert done.stdout.splitlines()[1] == str(page)
    assert done.stdout.startswith("No, not within the objectives: Database server failure")
    bucket = places.bucket(host.settings)
    assert bucket.get("records/readiness.html") == page.read_bytes()
    told = json.loads(bucket.get("records/readiness.json"))
    assert (told["platform"], told["status"]) == ("cad-test", "FAIL")
    head = bucket.client.head_object(
        Bucket=bucket.name, Key=bucket.full_key("records/readiness.html")
    )
    assert head["ContentType"] == "text/html; charset=utf-8"


def test_a_bucket_that_is_away_is_told_on_the_page(host, tmp_path: Path) -> None:
    host.write_yaml(endpoint="http://127.0.0.1:9")
    done = host.run("readiness", "--html", str(tmp_path / "page.html"), "--json", ok=4)
    told = json.loads(done.stdout)
    assert told["status"] != "PASS"
    assert any("127.0.0.1:9" in gap for gap in told["gaps"])
    assert "127.0.0.1:9" in (tmp_path / "page.html").read_text()
