"""The set-up: where restic may come from, what is never left half done, what the lock holds."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.fixture
def fetch_restic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = importlib.import_module("fetch_restic")
    monkeypatch.setattr(module, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(module, "RESTIC", tmp_path / "tools" / "bin" / "restic")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return module


@pytest.fixture
def setup_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = importlib.import_module("setup_steps")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(module, "MARK", venv / "finished.json")
    return module


def a_restic(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'restic {version} compiled with go1.24'\n")
    path.chmod(0o755)
    return path


# -- restic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "good"),
    [("0.14.0", False), ("0.16.5", False), ("0.17.0", True), ("0.18.0-dev", True), ("1.0", True)],
)
def test_restic_on_path_counts_when_new_enough(
    fetch_restic: ModuleType, tmp_path: Path, version: str, good: bool
) -> None:
    program = a_restic(tmp_path / "bin" / "restic", version)
    assert fetch_restic.find() == (program if good else None)


def test_the_fetched_restic_comes_first(fetch_restic: ModuleType, tmp_path: Path) -> None:
    a_restic(tmp_path / "bin" / "restic", "0.17.0")
    assert fetch_restic.find() == tmp_path / "bin" / "restic"
    fetched = a_restic(fetch_restic.RESTIC, "0.18.0")
    assert fetch_restic.find() == fetched


def test_a_restic_that_does_not_run_does_not_count(
    fetch_restic: ModuleType, tmp_path: Path
) -> None:
    a_restic(tmp_path / "bin" / "restic", "0.18.0").write_text("#!/no/such/interpreter\n")
    assert fetch_restic.find() is None


def test_without_any_way_it_says_what_to_install(fetch_restic: ModuleType) -> None:
    with pytest.raises(fetch_restic.Unavailable) as refusal:
        fetch_restic.fetch()
    for line in ("Homebrew: not on this machine", "apt: not on this machine", "apk add restic"):
        assert line in str(refusal.value)
    assert not fetch_restic.TOOLS.exists()


def test_an_unknown_signing_key_is_explained() -> None:
    fetch_debian = importlib.import_module("fetch_debian")
    said = fetch_debian.explain("W: GPG error: ... NO_PUBKEY 6ED0E7B82643E131\nE: is not signed.")
    assert "debian-archive-keyring" in said
    assert "6ED0E7B82643E131" in said


DEB822 = """\
# The main archive
Types: deb deb-src
URIs: https://one.example/debian
# a comment in the middle
 https://two.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://security.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: https://switched-off.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb https://comment.example/debian bookworm main
deb-src https://source.example/debian bookworm main
deb [arch=amd64 signed-by=/key.gpg] https://three.example/debian trixie main # the newest
deb https://archive.example/ubuntu noble main
deb https://packages.example/tool bookworm stable
"""


def test_mirrors_of_debian_are_found_in_both_formats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch_debian = importlib.import_module("fetch_debian")
    sources = [*fetch_debian.parse_deb822(DEB822), *fetch_debian.parse_one_line(ONE_LINE)]
    monkeypatch.setattr(fetch_debian, "configured_sources", lambda: sources)
    monkeypatch.setattr(fetch_debian, "DEBIAN_KEYRINGS", ())

    mirrors = {source.uri: source.signed_by for source in fetch_debian.debian_mirrors()}

    assert list(mirrors) == [
        "https://one.example/debian",
        "https://two.example/debian",
        "https://three.example/debian",
    ]
    assert mirrors["https://three.example/debian"] == "/key.gpg"
    assert mirrors["https://one.example/debian"].splitlines()[1:] == [
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
        " .",
        " abc",
    ]


# -- The environment ----------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize(
    "at", ["run", "install_locked_pip", "install_project", "compile_packages", "write_mark"]
)
def test_an_interrupted_build_leaves_no_environment(
    setup_steps: ModuleType, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException], at: str
) -> None:
    def stopped(*_: object, **__: object) -> None:
        setup_steps.VENV.mkdir(exist_ok=True)
        raise stop

    steps = ("run", "install_locked_pip", "pip", "install_project", "compile_packages")
    for step in steps:
        monkeypatch.setattr(setup_steps, step, lambda *_, **__: None)
    monkeypatch.setattr(setup_steps, at, stopped)
    setup_steps.VENV.mkdir()
    setup_steps.MARK.write_text("{}")

    with pytest.raises(stop):
        setup_steps.build_environment()

    assert not setup_steps.VENV.exists()


def test_an_environment_counts_only_with_its_mark(setup_steps: ModuleType) -> None:
    setup_steps.PYTHON.parent.mkdir(parents=True)
    setup_steps.PYTHON.symlink_to(sys.executable)
    assert setup_steps.read_mark() == {}

    setup_steps.write_mark()
    assert setup_steps.read_mark()["environment"] == setup_steps.environment_fingerprint()

    setup_steps.PYTHON.unlink()
    setup_steps.PYTHON.symlink_to("/no/such/python")
    assert setup_steps.read_mark() == {}


def test_a_program_that_runs_from_a_folder_is_named(tmp_path: Path) -> None:
    leftovers = importlib.import_module("leftovers")
    script = tmp_path / "wait.sh"
    script.write_text("read line\n")
    child = subprocess.Popen(["/bin/sh", str(script)], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10  # until it has become /bin/sh
        while not leftovers.processes_using(tmp_path) and time.monotonic() < deadline:
            pass
        assert [process.pid for process in leftovers.processes_using(tmp_path)] == [child.pid]
        assert leftovers.processes_using(tmp_path / "wait") == []
    finally:
        child.communicate()
    assert os.getpid() not in {process.pid for process in leftovers.processes_using(ROOT)}


# -- The lock -----------------------------------------------------------------------------------


def test_the_lock_names_no_index() -> None:
    assert not re.search(r"://|--index|--extra-index|--find-links|--trusted-host", LOCK)


def test_everything_locked_has_a_version_and_hashes() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize(
    "wanted",
    [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])],
)
def test_the_lock_satisfies_what_the_project_asks_for(wanted: str) -> None:
    requirement = Requirement(wanted)
    name = re.escape(canonicalize_name(requirement.name))
    versions = re.findall(rf"^{name}==(\S+)", LOCK, re.MULTILINE)
    assert versions, f"{requirement.name} is not locked: make lock"
    assert all(requirement.specifier.contains(version) for version in versions)
