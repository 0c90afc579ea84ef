"""The pages people look at, each with much in it and with words that do not break."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from lifeboat.core import followups
from lifeboat.core.checks import CHECK_NAMES, CheckResult, Status
from lifeboat.core.drill import DrillReport, ScenarioResult
from lifeboat.core.incident import Event, EventKind, Incident, add_up
from lifeboat.core.incident_report import IncidentReport
from lifeboat.core.status_page import ServiceState, make_page
from lifeboat.core.timeline import Phase, RungAttempt
from lifeboat.tools import pages, report

NOW = datetime(2026, 11, 26, 3, 15, tzinfo=timezone.utc)
LONG = "/srv/cad/data/" + "a-directory-with-a-long-name/" * 4 + "drawing.dwg"
_RUN = "recover-database-20261126T031500Z-4f2a"


def checks() -> tuple[CheckResult, ...]:
    bad = {"search": Status.FAIL, "memory-stable": Status.UNKNOWN, "ai-inference": Status.NONE}
    return tuple(
        CheckResult(
            name=name,
            status=bad.get(name, Status.PASS),
            evidence=LONG if name == "search" else f"{name}: as it should be, 200 in 0.02 s",
            seconds=0.2,
        )
        for name in CHECK_NAMES
    )


def incident() -> Incident:
    def line(minutes: float, kind: EventKind, text: str = "", **data: object) -> Event:
        at = NOW + timedelta(minutes=minutes)
        return Event(at=at, kind=kind, text=text, by="Ada Lovelace", run=_RUN, data=data)

    def told(minutes: float, moment: str, to: str, **more: object) -> Event:
        data = {"audience": "management", "moment": moment, "to": to, **more}
        return line(minutes, EventKind.MESSAGE, **data)

    opened = {"platform": "cad-ai-platform", "scenario": "database", "severity": "critical"}
    passed = {"checks_passed": 15, "checks_total": 17}
    found = add_up(
        [
            line(0, EventKind.OPENED, "cad-ai-platform: the database does not work", **opened),
            line(1, EventKind.DETECTED, f"2 blocks can't be read: {LONG}"),
            line(2, EventKind.DECIDED, "The plan was approved by Ada Lovelace: it is down"),
            line(3, EventKind.RUNG, "restart: failed. It does not start: " + "x" * 120),
            line(4, EventKind.RUNG, "hot: done. The newest base copy"),
            line(5, EventKind.CHECKS, "15 of 17 checks passed", **passed).model_copy(
                update={
                    "data": {
                        **passed,
                        "checks": [check.model_dump(mode="json") for check in checks()],
                    }
                }
            ),
            told(6, "opened", "Grace Hopper", channel="mail"),
            told(6, "opened", "Sam Support", not_taken={"pager": "503"}),
            told(7, "update", "Grace Hopper", withheld="quiet hours"),
            line(
                8,
                EventKind.RECOVERED,
                "recover-database is done in 240 s",
                rto_seconds=480.0,
                lost_at_most_seconds=61.5,
                lost_because="database: the last commit that was replayed",
            ),
            line(90, EventKind.CLOSED, "We have looked back."),
        ],
        id="20261126T031500Z-database-4f2a",
    )
    assert found
    return found


def incident_page() -> str:
    opened = followups.opened(_RUN, NOW, owners={})
    made = IncidentReport(
        incident=incident(),
        written_at=NOW + timedelta(hours=2),
        objective_rto_seconds=14400,
        objective_rpo_seconds=3600,
        follow_ups=tuple(followups.states(opened)),
    )
    return pages.report_html(made)


def status_page() -> str:
    names = ("postgres", "redis", "api", "web", "worker-with-" + "a-long-name-" * 6, "minio")
    states = (ServiceState.DOWN, ServiceState.UNKNOWN, *[ServiceState.OPERATIONAL] * 4)
    older = incident().model_copy(
        update={"id": "20261101T031500Z-files-1a2b", "opened_at": NOW - timedelta(days=25)}
    )
    made = make_page(
        title="CAD AI Platform",
        url="https://status.example.com/",
        services=dict(zip(names, states, strict=True)),
        incidents=[incident(), older],
        now=NOW,
    )
    return pages.status_html(made)


def drill_page() -> str:
    phases = {phase: float(number + 1) for number, phase in enumerate(Phase)}

    def result(name: str, *, good: bool = True) -> ScenarioResult:
        return ScenarioResult(
            name=name,
            broken=f"destroyed: {LONG}",
            detected=True,
            detected_by=("database-connections", "health-endpoints"),
            recovered=good,
            rto_seconds=33.3,
            rpo_seconds=0.0 if good else 4000.0,
            rows_lost=0 if good else 7,
            files_lost=0,
            acknowledged_rows=1000,
            acknowledged_files=100,
            lost=() if good else (LONG,),
            checks_passed=15 if good else 3,
            checks_total=17,
            checks=checks(),
            phases=phases,
            outside_steps_seconds=0.4,
            rungs=(RungAttempt(rung="local-vault", outcome="done", reason="it held", seconds=3),),
            record=_RUN,
            facts={"place": LONG},
            error="" if good else f"Verifying the recovery: {LONG} " + "y" * 200,
        )

    return report.render_html(
        DrillReport(
            id="drill-20261126T031500Z-ab12",
            platform="cad-ai-staging",
            stack="process",
            began_at=NOW,
            ended_at=NOW + timedelta(minutes=9),
            objective_rto_seconds=14400,
            objective_rpo_seconds=3600,
            wal="asynchronous",
            orchestrator="prefect",
            scenarios=(result("database"), result("files"), result("server", good=False)),
        )
    )


PAGES = {"incident": incident_page, "status": status_page, "drill": drill_page}
