"""Where a drill makes its stage, whose secrets it uses, and what it does not remove."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lifeboat.core.errors import PreconditionError
from lifeboat.core.forms import Drill
from lifeboat.settings import SECRETS, forget_secrets
from staging.orchestrator import Orchestrator
from tasks import drill


@pytest.mark.parametrize(("of_a_worker", "base"), [(True, "home"), (False, "here")])
def test_the_stage_outlives_the_directory_of_a_workers_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_a_worker: bool, base: str
) -> None:
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "an id" if of_a_worker else "")
    monkeypatch.chdir(tmp_path / "here")
    request = drill.with_lasting_places(Drill(reports="/srv/reports"))
    assert (request.root, request.reports) == (
        str(tmp_path / base / ".lifeboat/staging"),
        "/srv/reports",
    )


def test_the_secrets_of_the_platform_of_the_worker_are_not_those_of_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "of production")
    forget_secrets()
    assert not SECRETS.keys() & os.environ.keys()


def test_a_directory_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "staging-orchestrator" / "drawings.zip"
    theirs.parent.mkdir()
    theirs.write_text("the only copy")
    with pytest.raises(PreconditionError, match="something else"):
        Orchestrator(theirs.parent, platform="cad", environment={}).destroy()
    assert theirs.exists()
