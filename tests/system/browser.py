"""Headless Chromium by its own DevTools protocol: looks, clicks and types as a person does."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

SCREENSHOTS = Path(__file__).parents[2] / ".lifeboat" / "screenshots"
PATIENCE_SECONDS = 180  # where an image is built beside it, a page takes a minute
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Of all elements that show the text, the innermost ones that are seen; the last is on top.
_FIND = """
(() => {
  const wanted = %s, role = %s;
  const name = e => (e.getAttribute('aria-label') || e.innerText || e.placeholder || '').trim();
  const seen = [...document.querySelectorAll(role || '*')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width > 0 && r.height > 0 && name(e) === wanted;
  });
  const found = seen.filter(e => !seen.some(o => o !== e && e.contains(o))).at(-1);
  if (!found) return null;
  found.scrollIntoView({block: 'center'});
  const r = found.getBoundingClientRect();
  return {x: r.x + r.width / 2, y: r.y + r.height / 2};
})()
"""
_FIELD = """
(() => {
  const label = [...document.querySelectorAll('label')].filter(
    e => e.innerText.trim().replace(/\\s*\\(Optional\\)$/, '') === %s
      && e.getBoundingClientRect().width > 0).at(-1);
  if (!label) return null;
  const field = document.getElementById(label.htmlFor)
    || label.parentElement.querySelector('input, textarea, button');
  if (!field) return null;
  field.scrollIntoView({block: 'center'});
  const r = field.getBoundingClientRect();
  return {x: r.x + r.width / 2, y: r.y + r.height / 2};
})()
"""


def program() -> str:
    """Where Chromium is. Without it the test is skipped, or fails if LIFEBOAT_REQUIRE_BROWSER=1."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found:
        return found
    reason = "there is no Chromium on PATH (Debian: apt-get install chromium)"
    if os.environ.get("LIFEBOAT_REQUIRE_BROWSER") == "1":
        pytest.fail(f"LIFEBOAT_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


class Page:
    """One page. What is looked for is waited for, and told with what the page shows if it stays
    away.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict:
        number = next(self._numbers)
        told = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(told))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE_SECONDS))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def go(self, url: str, *parts: str) -> None:
        """Open a page, and wait until it shows all of these.

        One that does not is opened again, as a person would: the first one sometimes stays blank,
        and one whose first question to a busy server was lost asks no second time.
        """
        for _ in range(3):
            self.call("Page.navigate", url=url)
            deadline = time.monotonic() + PATIENCE_SECONDS / 3
            while time.monotonic() < deadline:
                text = self.text
                if text.strip() and all(part in text for part in parts):
                    return
                time.sleep(0.1)
        raise AssertionError(f"{url} does not show {list(parts)}. There is:\n{text}")

    @property
    def text(self) -> str:
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def until(self, *parts: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until the page shows all of these; give its text."""
        deadline = time.monotonic() + seconds
        while not all(part in (text := self.text) for part in parts):
            if time.monotonic() > deadline:
                missing = [part for part in parts if part not in text]
                raise AssertionError(f"{missing} never shown. There is:\n{text}")
            time.sleep(0.2)
        return text

    def click(self, text: str, role: str = "") -> None:
        self._click_at(_FIND % (json.dumps(text), json.dumps(role)), text)

    def type(self, label: str, text: str) -> None:
        """Replace what a field holds."""
        self._click_at(_FIELD % json.dumps(label), label)
        self.call("Input.dispatchKeyEvent", type="keyDown", commands=["selectAll"])
        self.call("Input.insertText", text=text)

    def choose(self, label: str, option: str) -> None:
        """Choose one of a list that opens."""
        self.click(f"Select {label}", "button")
        self.click(option, "[role=option]")

    def _click_at(self, find: str, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        before = None
        # Where it is twice in a row, it has stopped moving.
        while (at := self.evaluate(find)) is None or at != before:
            if time.monotonic() > deadline:
                raise AssertionError(f"{what!r} is not there to be clicked on:\n{self.text}")
            before = at
            time.sleep(0.15)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def picture(self, name: str) -> None:
        """Keep a picture of what is shown, for eyes, after the tests are over."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(data))


@contextmanager
def opened(directory: Path, *, password: str, size: str = "1440,1100") -> Iterator[Page]:
    """A browser that knows the password of Prefect's UI."""
    log = directory / "chromium.log"
    with log.open("w") as output:
        child = subprocess.Popen(
            [
                *(program(), "--headless=new", "--no-sandbox", "--disable-gpu"),
                *("--remote-debugging-port=0", f"--user-data-dir={directory}/profile"),
                *("--disable-dev-shm-usage", "--hide-scrollbars", f"--window-size={size}"),
                "about:blank",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with connect(_address(child, log), max_size=None, ping_interval=None) as socket:
            page = Page(socket)
            page.call("Page.enable")
            code = base64.b64encode(password.encode()).decode()
            # Where the UI itself keeps it after a login.
            page.call(
                "Page.addScriptToEvaluateOnNewDocument",
                source=f"localStorage.setItem('prefect-password', {json.dumps(code)})",
            )
            try:
                yield page
            except BaseException:
                with suppress(Exception):
                    page.picture(f"failed-{directory.name}")
                raise
    finally:
        child.terminate()
        child.wait(timeout=30)


def _address(child: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        said = re.search(r"DevTools listening on ws://([\d.:]+)/", log.read_text())
        if said:
            for target in httpx.get(f"http://{said[1]}/json", timeout=30).json():
                if target["type"] == "page":
                    return target["webSocketDebuggerUrl"]
        assert child.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
