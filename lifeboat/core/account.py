"""What a run tells an operator while it goes on and after it: the clock, the checks, the timeline.

Markdown and rows of tables, as Prefect's UI shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from lifeboat.core.checks import CHECKLIST, Status, Verdict
from lifeboat.core.plan import age_in_words
from lifeboat.core.timeline import Outcome, RunRecord, phase_seconds


def clock(record: RunRecord, *, now: float, doing: str, rto_seconds: float | None) -> str:
    """How long a recovery has taken until `now` (seconds since the epoch), phase by phase."""
    seconds = (record.ended_at or now) - record.began_at
    used = _words(seconds)
    if rto_seconds:
        used += f" of {_words(rto_seconds)} (RTO): {100 * seconds / rto_seconds:.1f} %"
    phases = [
        f"| {phase} | {spent:.1f} s |"
        for phase, spent in phase_seconds(record.steps).items()
        if spent
    ]
    return "\n".join(
        [
            f"# {record.procedure} on {record.platform}: {_how(record)}",
            *("", f"**{used}**", ""),
            *([f"Now: {doing}", ""] if doing and record.outcome is None else []),
            *("| phase | at work |", "|---|---|", *phases),
        ]
    )


def _how(record: RunRecord) -> str:
    if record.outcome is None:
        return "running"
    if record.outcome is Outcome.DONE and record.procedure.startswith("recover"):
        return "recovered"
    return str(record.outcome)


def _words(seconds: float) -> str:
    return age_in_words(timedelta(seconds=seconds))


def checks(verdict: Verdict) -> str:
    """Every check of the plan's list on one page, with its whole evidence.

    No table of Prefect's: that shows ten rows and one line of each, and the eleventh may be the one
    that failed.
    """
    by_name = {check.name: check for check in verdict.checks}
    lines = [f"# {verdict.passed} of {verdict.total} checks passed", ""]
    for section, names in CHECKLIST.items():
        found = [by_name[name] for name in names if name in by_name]
        rows = [
            f"| {check.name} | {_status(check.status)} | {_cell(check.evidence)} "
            f"| {check.seconds:.1f} |"
            for check in found
        ]
        head = ("| check | status | evidence | seconds |", "|---|---|---|---|")
        lines += [f"## {section}", "", *head, *rows, ""]
    return "\n".join(lines)


def _status(status: Status) -> str:
    return str(status) if status is Status.PASS else f"**{status}**"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def timeline_table(record: RunRecord) -> list[dict[str, str]]:
    """Each step in the order in which it began, with how it ended."""
    return [
        {
            "at": f"{_moment(step.began_at):%H:%M:%S}",
            "step": step.name.replace("-", " "),
            "phase": str(step.phase or ""),
            "seconds": f"{step.seconds:.1f}",
            "end": str(step.outcome),
            "note": step.note,
        }
        for step in sorted(record.steps, key=lambda step: step.began_at)
    ]


def result(record: RunRecord, *, places: Mapping[str, str]) -> str:
    """How it ended and where its record is. `places` are addresses by what lies there."""
    verdict = record.verdict
    checks = f"{verdict.passed} of {verdict.total} checks passed" if verdict else "not verified"
    lines = [
        f"# {record.procedure} on {record.platform}: {_how(record)}",
        "",
        f"- {_moment(record.began_at):%Y-%m-%d %H:%M:%S} UTC, {_words(record.seconds)}",
        f"- {checks}",
        *([f"- {record.error}"] if record.error else []),
        *(f"- recovery point `{point}`" for point in record.points),
        *(f"- cure {rung.rung}: {rung.outcome}, {rung.reason}" for rung in record.rungs),
        *(f"- kept aside: {moved.what}, now `{moved.where}`" for moved in record.moved_aside),
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in record.facts.items()),
        *("", f"## The record, `{record.id}`", ""),
    ]
    for what, where in places.items():
        shown = f"[{where}]({where})" if where.startswith("http") else f"`{where}`"
        lines.append(f"- {what}: {shown}")
    return "\n".join(lines)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)
