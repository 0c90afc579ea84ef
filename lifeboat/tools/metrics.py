"""The objectives as a file for Prometheus' textfile collector (node_exporter reads `*.prom`)."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from lifeboat.core.checks import Status
from lifeboat.core.objectives import Report


def write(report: Report, path: Path) -> None:
    """Write the metrics of a report; the file is replaced at once or stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), _registry(report))


def _registry(report: Report) -> CollectorRegistry:
    registry = CollectorRegistry()

    def gauge(name: str, told: str, *labels: str) -> Gauge:
        labels = ("platform", *labels)
        return Gauge(f"lifeboat_{name}", told, labels, registry=registry)

    platform = report.platform
    exposure = gauge("exposure_seconds", "What would be lost now, in seconds", "scenario")
    rpo = gauge("objective_rpo_seconds", "The most that may be lost", "scenario")
    for lost in report.exposures:
        if lost.seconds is not None:
            exposure.labels(platform, lost.scenario).set(lost.seconds)
        rpo.labels(platform, lost.scenario).set(lost.objective_seconds)
    estimate = gauge("recovery_estimate_seconds", "How long a recovery would take", "scenario")
    rto = gauge("objective_rto_seconds", "The longest that it may take", "scenario")
    for takes in report.estimates:
        if not takes.unmeasured:
            estimate.labels(platform, takes.scenario).set(takes.seconds)
        rto.labels(platform, takes.scenario).set(takes.objective_seconds)
    backup_age = gauge("backup_age_seconds", "Age of the newest copy that counts", "asset", "tier")
    for age in report.backup_ages:
        backup_age.labels(platform, age.asset, age.tier).set(age.seconds)
    verified_age = gauge("verified_age_seconds", "Since a point was last proven", "asset")
    for age in report.verified_ages:
        verified_age.labels(platform, age.asset).set(age.seconds)
    finding = gauge("finding", "1 for the status that a finding has", "name", "status")
    for found in report.findings:
        for status in Status:
            is_it = found.status is status
            finding.labels(platform, found.name, status).set(1 if is_it else 0)
    gauge("good", "1 if all findings are good").labels(platform).set(1 if report.good else 0)
    when = gauge("watch_timestamp_seconds", "When this was looked at: an old one is an alarm")
    when.labels(platform).set(report.at.timestamp())
    return registry
