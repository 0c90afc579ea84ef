"""bench/RESULTS.md: one section per part, so that a run of one part leaves the others' alone."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

from lifeboat import __version__
from tasks import clock

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = """\
# Lifeboat beside what people would use instead

`make bench` writes this file; `python -m bench --only files` replaces one section of it. Within a
table everything was measured in one run on one machine, alternating; figures are medians.
Seconds are those of the whole command unless the row says otherwise; memory is what all processes
of a contender held together, looked at ten times a second.
"""
_SECTION = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)


def machine() -> str:
    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{clock.now():%Y-%m-%d}, Lifeboat {__version__}, {os.cpu_count()} cores, {memory:.0f} GB "
        f"of memory, {platform.freedesktop_os_release()['PRETTY_NAME']}, "
        f"Python {platform.python_version()}"
    )


def replace_section(file: Path, title: str, lines: Iterable[str]) -> str:
    """Put a part's section in the place of its earlier one, or behind all others; give it."""
    sections = _read(file)
    section = "\n".join([f"## {title}", "", *lines]).rstrip() + "\n"
    sections[title] = section
    file.write_text("\n".join([_HEAD, *sections.values()]), encoding="utf-8")
    return section


def _read(file: Path) -> dict[str, str]:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    starts = list(_SECTION.finditer(text))
    ends = [*(match.start() for match in starts), len(text)][1:]
    return {
        match["title"]: text[match.start() : end].rstrip() + "\n"
        for match, end in zip(starts, ends, strict=True)
    }
