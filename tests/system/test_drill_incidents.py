"""A drill leaves an incident for each scenario, and messages that people really receive."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lifeboat.core import incident_report
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
    with receivers.mail() as mail, receivers.chat() as chat:
        chat.refuses_each = 2
        words = [
            *(sys.executable, "-c", "from lifeboat.cli import main; main()", "drill"),
            *("--root", str(root / "staging"), "--reports", str(root / "reports")),
            *("--scale", "0.02", "--server-load-seconds", "5", "--keep", "--json"),
            *("--channel", "json://127.0.0.1:9/dead", "--channel", chat.address),
            *("--channel", mail.address),
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
        bucket = places.bucket(settings)
        reports = {i.scenario: bucket.get(incidents.key(i.id, "report.md")).decode() for i in known}
        reports["status page"] = bucket.get("status/index.html").decode()
        site.stop()
        yield report, {incident.scenario: incident for incident in known}, reports, (mail, chat)


def test_each_scenario_leaves_an_incident_with_the_reports_numbers(drilled) -> None:
    report, found, written, _ = drilled
    assert report.passed, report.in_words()
    assert found.keys() == {scenario.name for scenario in report.scenarios}
    page = written["status page"]
    for incident in found.values():
        _, _, article = page.partition(f'id="{incident.id}"')
        assert "(an exercise)" in article and ">closed<" in article.partition("</article>")[0]
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
        # What the recovery says of itself is never less than what was counted from outside. How old
        # a file was that no point holds whole, it can't know: a backup may come just after damage.
        if not scenario.facts.get("files_lost"):
            assert recovered.data["lost_at_most_seconds"] >= scenario.rpo_seconds
        assert recovered.data["lost_because"]
        for check in scenario.checks:
            assert f"| {check.name} | {check.status} |" in text
        rpo = incident_report.rpo_in_words(incident.figures, report.objective_rpo_seconds)
        assert f"Data lost (RPO): {rpo}" in text
        told = [m.body for m in incident.messages if m.moment == "closed"]
        assert told, "people hear the same"
        for part in (f"{scenario.checks_passed} of {scenario.checks_total} passed", rpo):
            assert any(part in body for body in told), part
        assert incident.runs == (scenario.record,), "the recovery joined what monitoring opened"


def test_people_received_it_by_the_channel_that_works(drilled) -> None:
    _, found, _, (mail, chat) = drilled
    assert mail.titles and chat.titles
    titles = mail.titles + chat.titles
    assert all(title.startswith("[DRILL] ") for title in titles)
    sent = [m.title for i in found.values() for m in i.messages if m.reached]
    assert set(sent) == set(titles), "what is on record was received, and nothing else"
    incident = found["server"]
    assert incident.not_reached == ()
    ways = {m.channel: tuple(m.not_taken) for m in incident.messages if not m.withheld}
    assert ways == {"drill-2": ("drill-1",), "drill-3": ("drill-1", "drill-2")}
    for moment in ("opened", "recovered", "closed"):
        assert any(m.moment == moment and m.reached for m in incident.messages), moment
