"""Prefect's server is killed in mid-recovery: it goes on, and history learns of its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeboat.core.forms import Drill
from lifeboat.settings import load_settings
from staging import faults
from staging.site import Site
from tasks import drill_outage
from tasks.drill import Stage, Trial
from tasks.record import recorded
from tests.system import settings_file

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture
def stage(staging_site: Site, lifeboat, monkeypatch: pytest.MonkeyPatch) -> Stage:
    own = {"keep.files_seconds": 3600, "keep.on_change_seconds": 3600}
    own |= {"vault.s3.prefix": "outage", **settings_file.QUICK_CHECKS}
    settings_file.change(staging_site.settings_path, own)
    staging_site.stack.start(["wal-receiver"])
    for name, value in staging_site.environment().items():
        monkeypatch.setenv(name, value)
    for asset in ("config", "files", "models", "database"):
        done = lifeboat(staging_site.settings_path, "backup", asset)
        assert done.returncode == 0, done.stderr
    return Stage(site=staging_site, settings=load_settings(staging_site.settings_path))


def test_a_recovery_outlives_its_server_and_history_knows_its_end(
    stage: Stage, tmp_path: Path
) -> None:
    request = Drill(root=str(tmp_path / "drill"), scenarios=["models"], kill="orchestrator")
    trial = Trial(name="models", stage=stage, record=tmp_path / "load.jsonl")
    whole = {path.name: path.read_bytes() for path in stage.site.models.iterdir()}
    with (
        recorded("drill", platform="staging", directory=None),
        drill_outage.orchestrated(stage, request) as outage,
    ):
        faults.break_site(stage.site, "delete-models")
        assert {path.name for path in stage.site.models.iterdir()} != whole.keys()
        recovered = drill_outage.recover_through_outage(trial, outage)
        worker = (outage.orchestrator.directory / "logs/worker-recoveries.log").read_text()
    assert recovered.outcome == "done"
    assert recovered.verdict and recovered.verdict.passed == recovered.verdict.total == 18
    assert recovered.facts["orchestrator_killed_in"] in ("fetch", "restore")
    assert recovered.facts["orchestrator_killed_at_seconds"] < recovered.seconds
    assert recovered.facts["history"] == "COMPLETED"
    assert {path.name: path.read_bytes() for path in stage.site.models.iterdir()} == whole
    # If the server was away for long enough to be noticed, that is told in a sentence.
    assert "Traceback" not in worker, worker[-3000:]
    assert not (tmp_path / "drill-orchestrator").exists()
