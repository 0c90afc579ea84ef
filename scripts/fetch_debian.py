"""Fetch a package of Debian's newest stable release, whatever release this machine runs.

By way of the mirror that the machine is configured to use, and checked against the archive's
signature. apt works on folders of its own here: no root is needed, and the system's package lists,
its sources and its packages stay as they are.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED_PROGRAMS = ("apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb")
COMMAND_SECONDS = 600
STALE_SECONDS = 3600

# Suites that only Debian's own archive has: an Ubuntu mirror has no `stable`.
DEBIAN_SUITES = {
    *("buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
    *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
}
DEBIAN_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
)


class Unavailable(Exception):
    """A way to a program is closed; the message says why."""


@dataclass(frozen=True)
class Source:
    """One mirror that the machine's apt is configured to use."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


# -- Fetching -----------------------------------------------------------------------------------


def remove_leftovers(tools: Path) -> None:
    """Remove what a killed fetch left, but not what another one is working in."""
    for directory in tools.glob("fetching-*"):
        if directory.stat().st_mtime < time.time() - STALE_SECONDS:
            shutil.rmtree(directory, ignore_errors=True)


def from_stable(name: str, directory: Path) -> Path:
    """Download a package of Debian's newest stable release into a directory.

    Raise Unavailable, with what was tried, if no mirror of this machine has it.
    """
    reasons = []
    for source in debian_mirrors():
        try:
            return package_from(source, name, directory)
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable(
        "\n".join(reasons) or "this machine's package sources name no mirror of Debian"
    )


APT_QUIETLY = (
    *("-qq", "-o", "APT::Sandbox::User=root"),  # no other user could write to our folder
    *("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"),
)


def package_from(source: Source, name: str, directory: Path) -> Path:
    """Download a package of Debian stable from one mirror, checked against its signature."""
    state = directory / "apt"
    for place in ("lists/partial", "cache/archives/partial"):
        (state / place).mkdir(parents=True, exist_ok=True)
    fields = {
        "Types": "deb",
        "URIs": source.uri,
        "Suites": "stable",
        "Components": "main",
        "Architectures": run("dpkg", "--print-architecture").strip(),
        "Signed-By": source.signed_by,
    }
    sources = state / "debian-stable.sources"
    sources.write_text("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
    private = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "-",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state / "cache",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        "APT::Update::Error-Mode": "any",
    }
    options = [part for key, value in private.items() for part in ("-o", f"{key}={value}")]
    run("apt-get", *APT_QUIETLY, *options, "update")
    run("apt-get", *APT_QUIETLY, *options, "download", name, cwd=directory)
    return next(directory.glob(f"{name}_*.deb"))


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed. Raise Unavailable if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} gave no answer for {COMMAND_SECONDS} s") from error
    if done.returncode:
        raise Unavailable(explain(done.stderr) or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def explain(stderr: str) -> str:
    """Given what apt complained about, return what it means and what to do."""
    tail = "\n  ".join(stderr.strip().splitlines()[-6:])
    if re.search(r"NO_PUBKEY|EXPKEYSIG|is not signed", stderr):
        return (
            "this machine does not know the key that Debian's stable release is signed with.\n"
            "  Either `apt-get update && apt-get install debian-archive-keyring` brings it, or\n"
            f"  install the program yourself. apt said:\n  {tail}"
        )
    return tail


# -- The machine's apt sources ------------------------------------------------------------------


def debian_mirrors() -> list[Source]:
    """Return the configured mirrors of Debian's archive, each with a keyring to check it with."""
    keyring = next(filter(os.path.exists, DEBIAN_KEYRINGS), "")
    mirrors: dict[tuple[str, str], Source] = {}
    for source in configured_sources():
        if (
            "main" in source.components
            and DEBIAN_SUITES.intersection(source.suites)
            and not source.uri.startswith("cdrom:")
        ):
            signed_by = keyring or source.signed_by
            mirrors[source.uri, signed_by] = Source(source.uri, ("stable",), ("main",), signed_by)
    return list(mirrors.values())


def configured_sources() -> Iterator[Source]:
    """Yield what apt's own configuration files name, in both of their formats."""
    told = run("apt-config", "shell", "FILE", "Dir::Etc::sourcelist/f", "PARTS",
               "Dir::Etc::sourceparts/d")  # fmt: skip
    places = dict(re.findall(r"^(\w+)='(.*)'$", told, re.MULTILINE))
    parts = Path(places.get("PARTS", "/etc/apt/sources.list.d"))
    files = [Path(places.get("FILE", "/etc/apt/sources.list")), *sorted(parts.glob("*"))]
    for file in files:
        if file.suffix not in {".list", ".sources"} or not file.is_file():
            continue
        text = file.read_text(errors="replace")
        yield from parse_deb822(text) if file.suffix == ".sources" else parse_one_line(text)


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the sources of a sources.list(5) file in one-line format."""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if found:
            options, uri, suite, components = found.groups()
            signed_by = re.search(r"signed-by=(\S+)", options or "")
            yield Source(
                uri=uri,
                suites=(suite,),
                components=tuple(components.split()),
                signed_by=signed_by[1] if signed_by else "",
            )


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the sources of a sources.list(5) file in deb822 format."""
    without_comments = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            name.lower(): value.rstrip()
            for name, value in re.findall(
                r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE
            )
        }
        enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "off", "0"}
        if enabled and "deb" in fields.get("types", "").split():
            for uri in fields.get("uris", "").split():
                yield Source(
                    uri=uri,
                    suites=tuple(fields.get("suites", "").split()),
                    components=tuple(fields.get("components", "").split()),
                    signed_by=fields.get("signed-by", ""),
                )
