"""A drill leaves an incident for each scenario, and messages that people really receive."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lifeboat.core.drill import DrillReport
from lifeboat.core.incident import EventKind, State
from lifeboat.settings import give_secrets, load_settings
from tasks import places
from tasks.people import incidents
from tests.system import receivers

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory):
    """One drill of all scenarios; gives its report, its incidents and what was received."""
    root = tmp_path_factory.mktemp("drill")
    with receivers.mail() as mail:
        words = [
            *(sys.executable, "-c", "from lifeboat.cli import main; main()", "drill"),
            *("--root", str(root / "staging"), "--reports", str(root / "reports")),
            *("--scale", "0.02", "--server-load-seconds", "5", "--keep", "--json"),
            *("--channel", "json://127.0.0.1:9/dead", "--channel", mail.address),
            "--without-prefect",
        ]
        # Into files: the platform that is kept would hold a pipe open.
        with (root / "out").open("w") as out, (root / "log").open("w") as errors:
            subprocess.run(words, stdout=out, stderr=errors, timeout=500)
        told = (root / "out").read_text()
        assert told.startswith("{"), (root / "log").read_text()[-4000:]
        report = DrillReport.model_validate(json.loads(told))
        from staging.compose_site import site_at

        site = site_at(root / "staging")
        give_secrets(site.environment())
        settings = load_settings(site.settings_path)
        # The lost server had those of the others; the bucket has them all.
        known = incidents.list_incidents(settings, in_bucket=True)
        reports = {
            incident.scenario: places.bucket(settings)
            .get(incidents.key(incident.id, "report.md"))
            .decode()
            for incident in known
        }
        site.stop()
        yield report, {incident.scenario: incident for incident in known}, reports, mail


def test_each_scenario_leaves_an_incident_with_the_reports_numbers(drilled) -> None:
    report, found, written, _ = drilled
    assert report.passed, report.in_words()
    assert found.keys() == {scenario.name for scenario in report.scenarios}
    for scenario in report.scenarios:
        incident = found[scenario.name]
        text = written[scenario.name]
        assert f"{scenario.checks_passed} of {scenario.checks_total}" in text
        assert scenario.record in text
        assert "Conduct the post-incident review" in text, "the follow-ups are in the report"
        assert incident.state is State.CLOSED
        assert incident.drill
        assert incident.figures["rto_seconds"] == pytest.approx(scenario.rto_seconds)
        assert incident.figures["rpo_seconds"] == scenario.rpo_seconds
        assert incident.figures["checks_passed"] == scenario.checks_passed
        recovered = next(e for e in incident.events if e.kind is EventKind.RECOVERED)
        assert recovered.data["rto_seconds"] == pytest.approx(scenario.rto_seconds, abs=0.01)
        assert recovered.data["record"] == scenario.record
        assert incident.runs == (scenario.record,), "the recovery joined what monitoring opened"


def test_people_received_it_by_the_channel_that_works(drilled) -> None:
    _, found, _, mail = drilled
    assert mail.titles
    assert all(title.startswith("[DRILL] ") for title in mail.titles)
    incident = found["server"]
    assert incident.not_reached == ()
    assert {m.channel for m in incident.messages if not m.withheld} == {"drill-2"}
    assert all(m.not_taken.keys() == {"drill-1"} for m in incident.messages if m.reached)
    for moment in ("opened", "recovered", "closed"):
        assert any(m.moment == moment and m.reached for m in incident.messages), moment
