"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from lifeboat.cli import Exit, app
from lifeboat.settings import SECRETS, Keep
from staging.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert told == {int(code) for code in Exit}


def commands() -> set[str]:
    found = set()
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {part}" for part in inner} if inner else {name}
        if name == "prepare" or getattr(command, "invoke_without_command", False):
            found.add(name)
    return found


def test_every_command_that_is_named_exists() -> None:
    known = commands()
    for words in re.findall(
        r"lifeboat ([a-z-]+(?: [a-z][a-z0-9-]*)?)", README.replace("$asset", "files")
    ):
        first = words.split()[0]
        if first in {"alarms", "stack", "wal", "recover", "prepare"}:
            assert words in known or words in {"recover", "prepare", "prepare s3"}, words
        elif first in {"and", "cd"} or f"> lifeboat {first}" in README:
            continue
        else:
            assert first in known or not re.search(rf"`lifeboat {first}", README), words


@pytest.mark.parametrize(
    "path", re.findall(r"`((?:flows|tasks|lifeboat|staging|bench)/[^`]*)`", README)
)
def test_every_path_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_picture_is_there() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size > 10_000


def test_names_and_defaults_agree() -> None:
    for name in re.findall(r"`(LIFEBOAT_\w+|AWS_\w+)`", README):
        assert name in SECRETS
    keep = Keep()
    assert (keep.wal_seconds, keep.files_seconds, keep.database_seconds) == (60, 1800, 21600)
    assert (keep.models_seconds, keep.on_change_seconds) == (86400, 300)
    assert "destroy_data_directory" in FAULTS
    assert "stack break destroy-data-directory" in README
