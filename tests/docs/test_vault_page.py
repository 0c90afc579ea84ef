"""docs/vault.md: its findings are those that watch-objectives gives, and its commands are there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from typer.main import get_command

from lifeboat.cli import app
from lifeboat.core import objectives
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Keep

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/vault.md").read_text()


def _fixtures():
    path = ROOT / "tests/unit/objectives_fixtures.py"
    spec = importlib.util.spec_from_file_location("objectives_fixtures", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _general(name: str) -> str:
    """A finding's name as the page writes it."""
    name = re.sub(r"^\w+-(loss-exposure|recovery-time)$", r"<scenario>-\1", name)
    assets = "|".join(Asset)
    name = re.sub(rf"^({assets})-(backup-age|verified-age)$", r"<asset>-\2", name)
    name = re.sub(rf"^repository-({assets})-", "repository-<asset>-", name)
    tiers = f"{Tier.LOCAL}|{Tier.S3}"
    return name if name == "wal-lag-s3" else re.sub(rf"-({tiers})$", "-<tier>", name)


def test_every_finding_is_explained_and_no_other() -> None:
    given = _fixtures()
    whole = given.good_survey()
    names = {
        _general(finding.name)
        for survey in (whole, given.seen_from_s3(whole))
        for finding in objectives.judge(survey, given.LIMITS, given.NOW).findings
    }
    table = PAGE.split("| finding |")[1].split("\n\n")[0]
    explained = set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))
    # Only a host that was never watched lacks the one, and only afar it is looked for.
    assert explained - {"host-watch"} == names - {"host-watch"}


def test_every_command_is_there() -> None:
    commands = get_command(app).commands
    for line in re.findall(r"`lifeboat ([a-z-]+)", PAGE):
        assert line in commands, line


def test_the_intervals_are_the_defaults() -> None:
    keep = Keep()
    assert (keep.wal_seconds, keep.database_seconds, keep.files_seconds) == (60, 21600, 1800)
    assert (keep.on_change_seconds, keep.models_seconds, keep.watch_seconds) == (300, 86400, 300)
    assert (keep.platform_seconds, keep.restore_test_seconds, keep.prune_seconds) == (86400,) * 3
