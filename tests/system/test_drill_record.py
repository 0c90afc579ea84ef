"""A drill on a staging machine is put on record in the vault of the platform it was held for."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from lifeboat.core.drill import DrillOnRecord, DrillReport, ScenarioResult
from lifeboat.core.errors import PreconditionError
from lifeboat.core.forms import Drill
from lifeboat.core.marks import Kind
from lifeboat.core.timeline import Phase
from lifeboat.settings import give_secrets
from tasks import drill, marks
from tasks.survey_vault import Notes, rehearsals

pytestmark = [pytest.mark.system]

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


def a_result(name: str, **more: object) -> ScenarioResult:
    told = {
        "name": name,
        "broken": "destroyed",
        "detected": True,
        "detected_by": ("database-connections",),
        "recovered": True,
        "rto_seconds": 30.0,
        "rpo_seconds": 0.0,
        "rows_lost": 0,
        "files_lost": 0,
        "acknowledged_rows": 10,
        "acknowledged_files": 10,
        "checks_passed": 18,
        "checks_total": 18,
        "phases": {Phase.START: 4.0, Phase.VERIFY: 5.0},
        "outside_steps_seconds": 0.1,
        **more,
    }
    return ScenarioResult(**told)


def a_report(*scenarios: ScenarioResult) -> DrillReport:
    return DrillReport(
        id="drill-20260601T120000Z-ab12",
        platform="cad-ai-staging",
        stack="process",
        began_at=NOW,
        ended_at=NOW,
        objective_rto_seconds=14400,
        objective_rpo_seconds=3600,
        wal="synchronous",
        orchestrator="none",
        scenarios=scenarios,
    )


def test_the_result_goes_where_it_belongs_although_staging_has_other_secrets(
    host, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = drill.open_register(Drill(record_in=str(host.root / "lifeboat.yaml")))
    assert register
    report = a_report(a_result("database"), a_result("server", recovered=False))
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "LIFEBOAT_VAULT_PASSWORD"):
            patch.setenv(name, "of-the-stage")
        give_secrets({"AWS_ACCESS_KEY_ID": "of-the-stage"})
        drill.enter_result(register, report)
    page = drill.report_page(report.id)
    assert b"<html" in register.bucket.get(page)
    assert (host.root / "backups" / page).read_bytes() == register.bucket.get(page)

    settings = host.settings
    for from_bucket in (True, False):
        found = marks.read(settings, Kind.DRILLS, report.id, from_bucket=from_bucket)
        assert found == DrillOnRecord.of(report)
    [seen] = Notes(settings, in_bucket=True).drills()
    assert (seen.passed, [s.passed for s in seen.scenarios]) == (False, [True, False])
    [rehearsal] = rehearsals(settings, (seen,))
    assert (rehearsal.scenario, rehearsal.start_seconds, rehearsal.verify_seconds) == (
        "database",
        4.0,
        5.0,
    )


def test_on_a_machine_without_the_platforms_vault_none_is_begun(host) -> None:
    register = drill.open_register(Drill(record_in=str(host.root / "lifeboat.yaml")))
    assert register
    host.settings.vault.local.rename(host.root / "elsewhere")
    drill.enter_result(register, a_report(a_result("files")))
    assert not host.settings.vault.local.exists()
    assert len(Notes(host.settings, in_bucket=True).drills()) == 1


def test_a_vault_that_does_not_answer_is_refused_before_the_drill_begins(host) -> None:
    host.write_yaml(endpoint="http://127.0.0.1:9")
    with pytest.raises(PreconditionError, match=r"127\.0\.0\.1:9"):
        drill.open_register(Drill(record_in=str(host.root / "lifeboat.yaml")))
    assert drill.open_register(Drill()) is None
