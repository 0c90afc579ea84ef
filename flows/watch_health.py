from __future__ import annotations

from lifeboat.core.health import Health
from lifeboat.core.requests import Request
from lifeboat.settings import load_settings
from tasks import events, health
from tasks.orchestration import procedure
from tasks.record import recorded


@procedure("watch-health")
def watch_health(request: Request = Request()) -> Health:
    """Propose the recovery that fits, when the platform's health checks fail again and again.

    1. Look: do the critical services run, does the database answer, do the health endpoints? Not
       while a recovery is at work, nor while somebody has paused the watch.
    2. After `health.failures` bad looks in a row, tell people by the channels of `alarms`; then
       diagnose: which recovery fits, with the evidence.
    3. Start it, with the evidence in its plan; it pauses there, until a person approves or rejects
       it. Tell people of it. One that was rejected is not proposed again before the platform was
       well once.
    4. If the platform is well again before anybody approved it, take it back.

    What it changes: nothing of the platform; its own record.
    If it fails: the next one looks again; where these stop, the server tells people.
    Evidence: `records/health.json`; the plan of the recovery that was proposed.
    """
    settings = load_settings(request.config or None)
    with recorded("watch-health", platform=settings.platform, directory=None) as run:
        found = health.judge(settings, health.look(settings))
        events.tell_finished(settings.platform, "watch-health", run.id)
    return found
