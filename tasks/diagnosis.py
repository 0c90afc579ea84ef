"""What is wrong with the platform: looked at from all sides at once, and changed nowhere."""

from __future__ import annotations

import functools
from collections.abc import Collection

from lifeboat.core.diagnosis import Diagnosis, Symptoms, Tree, diagnose
from lifeboat.core.ladder import DatabaseAssessment
from lifeboat.core.points import Asset
from lifeboat.core.survey import Unseen
from lifeboat.settings import Settings
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from tasks import integrity, repair, restore_database, services
from tasks.looking import seen
from tasks.orchestration import side_by_side, step
from tasks.trees import directories_of


@step()
def find_what_is_wrong(settings: Settings) -> Diagnosis:
    """Compare database, files, models and services with what they should be. Never raises.

    Files and models are read as a whole, and compared by content with their newest trusted point.
    """
    looks = {
        "database": functools.partial(restore_database.assess_database, settings),
        "files": functools.partial(_compare, settings, Asset.FILES),
        "models": functools.partial(_compare, settings, Asset.MODELS),
        "services": functools.partial(services.look_at_services, settings),
    }
    found = side_by_side({name: functools.partial(seen, look) for name, look in looks.items()})
    return diagnose(
        Symptoms(
            platform=settings.platform,
            database=_if_seen(found["database"]),
            database_unseen=_why(found["database"]),
            files=_tree(settings, Asset.FILES, found["files"]),
            models=_tree(settings, Asset.MODELS, found["models"]),
            stopped=_stopped(settings, _if_seen(found["services"])),
            services_unseen=_why(found["services"]),
        )
    )


def _compare(settings: Settings, asset: Asset) -> tuple[repair.Damage, ...]:
    found = repair.find_damage(settings, repair.choose_source(settings, asset))
    return integrity.without_changes(settings, found) if asset is Asset.FILES else found


def _if_seen(found: DatabaseAssessment | Collection[ServiceStatus] | Unseen):
    return None if isinstance(found, Unseen) else found


def _why(found: object) -> str:
    return found.why if isinstance(found, Unseen) else ""


def _tree(settings: Settings, asset: Asset, found: tuple[repair.Damage, ...] | Unseen) -> Tree:
    there = any(
        path.is_dir() and any(path.iterdir()) for path in directories_of(settings, asset).values()
    )
    if isinstance(found, Unseen):
        return Tree(there=there, unseen=found.why)
    names = [name for damage in found for name in damage.names]
    return Tree(there=there, damaged=len(names), first=next(iter(names), ""))


def _stopped(settings: Settings, status: Collection[ServiceStatus] | None) -> tuple[str, ...]:
    if status is None:
        return ()
    states = (ServiceState.RUNNING, ServiceState.STARTING)
    up = {s.name for s in status if s.state in states and not s.failing}
    return tuple(name for name in settings.stack.critical_services if name not in up)
