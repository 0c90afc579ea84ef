"""Find a restic that is new enough, or fetch one into the project's own tool folder.

In this order: what was fetched before (.lifeboat/tools/bin/restic), one on PATH, Homebrew, and
apt. Debian 12's restic is too old, so apt means: the machine's own restic if its sources offer a
new one, otherwise the package of Debian's newest stable release, by way of the mirror that the
machine is configured to use. apt works on folders of its own here: no root is needed, and the
system's package lists, its sources and its packages stay as they are.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".lifeboat" / "tools"
RESTIC = TOOLS / "bin" / "restic"

NEEDED = (0, 17)  # `restore --overwrite always --delete`, exit codes 10 to 12
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

INSTALL_IT_YOURSELF = """\
Install restic {needed} or newer so that it is on PATH, and run this again:
  macOS                      brew install restic
  Debian 13, Ubuntu 25.04    apt-get install restic      (older releases are too old)
  Fedora                     dnf install restic
  Arch                       pacman -S restic
  Alpine                     apk add restic
  anything else              a binary from the releases of github.com/restic/restic"""


class Unavailable(Exception):
    """A way to a restic is closed; the message says why."""


@dataclass(frozen=True)
class Source:
    """One mirror that the machine's apt is configured to use."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


# -- Looking ------------------------------------------------------------------------------------


def version_of(program: str | Path) -> tuple[int, ...] | None:
    """Return restic's version as numbers, None if it does not run or does not say."""
    try:
        answer = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"restic (\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(number or 0) for number in found.groups()) if found else None


def find() -> Path | None:
    """Return a restic that is new enough: the one fetched before, else the one on PATH."""
    on_path = shutil.which("restic")
    for program in (RESTIC, Path(on_path) if on_path else None):
        if program and program.exists() and (version_of(program) or (0,)) >= NEEDED:
            return program
    return None


def ways() -> list[str]:
    """Return the package managers of this machine that restic may come from."""
    return [
        name
        for name, programs in {
            "Homebrew": ("brew",),
            "apt": ("apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb"),
        }.items()
        if all(map(shutil.which, programs))
    ]


def how_to_install() -> str:
    return INSTALL_IT_YOURSELF.format(needed=dotted(NEEDED))


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# -- Fetching -----------------------------------------------------------------------------------


def fetch() -> Path:
    """Fetch a restic that is new enough and return where it is.

    Raise Unavailable, with what was tried and what to install, and nothing half done, if there
    is no way to one.
    """
    tried = []
    for name, way in {"Homebrew": from_homebrew, "apt": from_apt}.items():
        if name not in ways():
            tried.append(f"{name}: not on this machine")
            continue
        try:
            return way()
        except Unavailable as reason:
            tried.append(f"{name}: {reason}")
    lines = ["No restic that is new enough could be found or fetched.", *tried, how_to_install()]
    raise Unavailable("\n".join(lines))


def from_homebrew() -> Path:
    run("brew", "install", "--quiet", "restic")
    prefix = run("brew", "--prefix").strip()
    restic = Path(prefix, "bin", "restic")
    if (version_of(restic) or (0,)) < NEEDED:
        raise Unavailable("its restic is too old or does not run")
    return restic


def from_apt() -> Path:
    TOOLS.mkdir(parents=True, exist_ok=True)
    remove_leftovers()
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=TOOLS) as name:
        directory = Path(name)
        package = package_from_own_sources(directory) or package_from_debian_stable(directory)
        run("dpkg-deb", "-x", package, directory / "package")
        restic = directory / "package" / "usr" / "bin" / "restic"
        version = version_of(restic)
        if version is None:
            raise Unavailable(f"{package.name} does not run on this machine")
        if version < NEEDED:
            raise Unavailable(f"{package.name} is too old")
        RESTIC.parent.mkdir(exist_ok=True)
        os.replace(restic, RESTIC)  # whole or not at all
    return RESTIC


def remove_leftovers() -> None:
    """Remove what a killed fetch left, but not what another one is working in."""
    for directory in TOOLS.glob("fetching-*"):
        if directory.stat().st_mtime < time.time() - STALE_SECONDS:
            shutil.rmtree(directory, ignore_errors=True)


def package_from_own_sources(directory: Path) -> Path | None:
    """Return the package that this machine would install, None if it has none or an old one."""
    policy = run("apt-cache", "policy", "restic")
    candidate = re.search(r"Candidate: (?:\d+:)?(\d+)\.(\d+)", policy)
    if not candidate or tuple(map(int, candidate.groups())) < NEEDED:
        return None
    try:
        run("apt-get", *APT_QUIETLY, "download", "restic", cwd=directory)
    except Unavailable:
        return None  # its lists are older than its mirror; Debian stable is fetched with new ones
    return next(directory.glob("restic_*.deb"))


def package_from_debian_stable(directory: Path) -> Path:
    reasons = []
    for source in debian_mirrors():
        try:
            return package_from(source, directory)
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable(
        "\n".join(reasons) or "this machine's package sources name no mirror of Debian"
    )


APT_QUIETLY = (
    *("-qq", "-o", "APT::Sandbox::User=root"),  # no other user could write to our folder
    *("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"),
)


def package_from(source: Source, directory: Path) -> Path:
    """Download restic's package of Debian stable from one mirror, checked against its signature."""
    state = directory / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    fields = {
        "Types": "deb",
        "URIs": source.uri,
        "Suites": "stable",
        "Components": "main",
        "Architectures": run("dpkg", "--print-architecture").strip(),
        "Signed-By": source.signed_by,
    }
    sources = state / "debian-stable.sources"
    sources.write_text("".join(f"{name}: {value}\n" for name, value in fields.items() if value))
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
    options = [part for name, value in private.items() for part in ("-o", f"{name}={value}")]
    run("apt-get", *APT_QUIETLY, *options, "update")
    run("apt-get", *APT_QUIETLY, *options, "download", "restic", cwd=directory)
    return next(directory.glob("restic_*.deb"))


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
            f"  install restic yourself. apt said:\n  {tail}"
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


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its folder is removed
    restic = find()
    if restic is None:
        try:
            restic = fetch()
        except Unavailable as reason:
            print(reason, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    print(f"restic {dotted(version_of(restic) or ())}: {restic}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
