from __future__ import annotations

from lifeboat.core.objectives import Report
from lifeboat.core.requests import WatchObjectives
from lifeboat.settings import load_settings
from tasks import alarms, events, objectives
from tasks.orchestration import procedure
from tasks.people import status_page
from tasks.record import recorded


@procedure("watch-objectives")
def watch_objectives(request: WatchObjectives = WatchObjectives()) -> Report:
    """Say from the stores alone whether the plan's promises hold now.

    1. Look: from the platform's host at both tiers and at the host; or, from any machine, at the
       bucket alone, by the settings that it holds.
    2. Judge: what would be lost now in each scenario, how long a recovery would take, and whether
       backups, restore tests and drills are as young, and the vault as whole, as they should be.
    3. Tell: an event for each finding that is not good, and, from the host, the report in both
       tiers, the file for Prometheus, and a message by the channels of `alarms` if there is
       news; and the status page.

    What it changes: from the host a probe object in the bucket, which it removes, and its own
    report; from afar nothing. It takes no lock, and works while a recovery or a backup runs.
    If it fails: it does not; what can't be looked at is UNKNOWN, which is never green.
    Evidence: `records/objectives.json` in both tiers.
    """
    with recorded("watch-objectives", platform="", directory=None):
        if request.source == "s3":
            report = objectives.look_from_bucket(request)
        else:
            settings = load_settings(request.config or None)
            report = objectives.look_from_host(settings)
            objectives.leave_report(settings, report)
            alarms.tell_of_objectives(settings, report)
            status_page.write_status_page(settings)
        events.tell_objectives(report)
    return report
