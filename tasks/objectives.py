"""Whether the plan's promises hold now: looked at, judged, and left where others can read it."""

from __future__ import annotations

import logging
from pathlib import Path

from lifeboat.core import objectives
from lifeboat.core.alarms import Finding, failed, unknown
from lifeboat.core.errors import RecoveryError
from lifeboat.core.objectives import Report
from lifeboat.core.requests import WatchObjectives
from lifeboat.core.survey import Cause, Unseen
from lifeboat.settings import Settings, secret_of_environment
from lifeboat.tools import filesystem, metrics
from tasks import clock, places, settings_in_vault, survey
from tasks.looking import seen
from tasks.orchestration import step
from tasks.prefect_server import orchestrator
from tasks.survey_vault import REPORT_KEY

log = logging.getLogger("lifeboat")

_NOWHERE = Path("/nonexistent")  # what another machine's settings name is not on this one
_SECRETS = ("LIFEBOAT_VAULT_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@step()
def look_from_host(settings: Settings) -> Report:
    """Look at both tiers and at this host. Raises nothing for what it finds."""
    found = survey.of_host(settings)
    report = objectives.judge(found, survey.limits_of(settings), clock.now())
    more = seen(lambda: orchestrator.findings(settings))
    told = (unknown("orchestrator", more.why),) if isinstance(more, Unseen) else more
    return report.model_copy(update={"findings": (*report.findings, *told)})


@step()
def look_from_bucket(request: WatchObjectives) -> Report:
    """Look at the bucket alone, by the settings that it holds.

    Raises SettingsError if a secret is not in the environment, and nothing for what it finds.
    """
    where = settings_in_vault.place(
        bucket=request.bucket,
        endpoint=request.endpoint,
        region=request.region,
        prefix=request.prefix,
    )
    for name in _SECRETS:
        secret_of_environment(name)
    found = seen(lambda: settings_in_vault.read(where, into=_NOWHERE, older_too=True))
    if isinstance(found, Unseen):
        first = _why_there_are_no_settings(found)
        return Report(platform="unknown", seen_from="s3", at=clock.now(), findings=(first,))
    # A path of the platform's host may name something else here.
    vault = found.settings.vault.model_copy(update={"local": _NOWHERE / "vault"})
    update = {"vault": vault, "secrets_file": None}
    found = found.model_copy(update={"settings": found.settings.model_copy(update=update)})
    return objectives.judge(survey.of_bucket(found), survey.limits_of(found.settings), clock.now())


def _why_there_are_no_settings(unseen: Unseen) -> Finding:
    if unseen.cause is Cause.PASSWORD:
        return failed(
            "vault-opens-s3",
            unseen.why,
            "Find the password with which the vault was made, before it is needed: without it "
            "nothing in it can be read.",
        )
    if unseen.cause in (Cause.MISSING, Cause.DAMAGED):
        return failed(
            "repository-config-s3",
            unseen.why,
            "Without a configuration in the bucket a lost server can't be rebuilt: look at "
            "--bucket and --prefix, and run `lifeboat backup config` on the platform's host.",
        )
    return unknown("bucket", unseen.why, "Look at the network, --endpoint, --bucket and the keys.")


class Announcer:
    """Tells the log what is not good any more and what is good again: news, not everything."""

    def __init__(self) -> None:
        self._red: dict[str, Finding] = {}

    def tell(self, report: Report) -> None:
        red = {finding.name: finding for finding in report.red}
        for name, finding in red.items():
            known = self._red.get(name)
            if known is None or known.status is not finding.status:
                told = f"{finding.evidence}. {finding.advice}".strip()
                log.warning("%s %s: %s", finding.status, name, told)
        for name in self._red.keys() - red.keys():
            log.info("%s is good again.", name)
        self._red = red


@step()
def leave_report(settings: Settings, report: Report) -> None:
    """Keep the last report in both tiers, and in the file for Prometheus. Never raises."""
    text = report.model_dump_json(indent=2).encode()
    try:
        places.bucket(settings).put(REPORT_KEY, text)
    except RecoveryError as error:
        log.warning("The report is only on this host: %s", error)
    local = settings.vault.local / REPORT_KEY
    try:
        # Where the vault's disk is not mounted, nothing is begun on the disk below it.
        if local.parent.is_dir():
            filesystem.atomic_write(local, text)
        if settings.watch.metrics_file:
            metrics.write(report, settings.watch.metrics_file)
    except OSError as error:
        log.warning("The report could not be written: %s: %s", error.filename, error.strerror)
