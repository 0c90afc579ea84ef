"""prefect.yaml on a Prefect server: what is declared is there, and nothing else of ours.

Differs from `prefect deploy --all` where that is silent: a misspelt key or an entrypoint that can't
be imported is an error before anything is changed, and deployments and schedules that are not
declared any more are removed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from lifeboat.core.deployment import (
    MANAGED,
    Declaration,
    DeploymentDeclaration,
    fill_variables,
)
from lifeboat.core.errors import PermanentError, PreconditionError, SettingsError, TransientError
from lifeboat.settings import Settings, read_model
from tasks.prefect_server import automations
from tasks.prefect_server.automations import AppliedAutomations

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.exceptions import PrefectHTTPStatusError

log = logging.getLogger("lifeboat")

DECLARATION = Path(__file__).parents[2] / "prefect.yaml"
POOL_TYPE = "process"


class Applied(BaseModel):
    """What `apply` did, by the names of deployments, work pools and automations."""

    model_config = ConfigDict(frozen=True)

    deployed: tuple[str, ...]
    removed: tuple[str, ...]
    pools_made: tuple[str, ...]
    automations: AppliedAutomations = AppliedAutomations()


def read_declaration(settings: Settings, file: Path = DECLARATION) -> Declaration:
    """Read prefect.yaml for one platform; its variables come from the platform's settings.

    Raises SettingsError with every mistake, each with its line and key.
    """
    declaration = read_model(
        file, Declaration, what=file.name, where_hint="It lies beside the README of Lifeboat."
    )
    known = {"LIFEBOAT_PLATFORM": settings.platform, "LIFEBOAT_CONFIG": str(settings.file)}
    told = fill_variables(declaration.model_dump(by_alias=True), known, what=file.name)
    filled = Declaration.model_validate(told)
    wanted = tuple(one for one in filled.deployments if _has_its_needs(one, settings))
    return filled.model_copy(update={"deployments": wanted})


def _has_its_needs(declared: DeploymentDeclaration, settings: Settings) -> bool:
    if declared.only_with and not getattr(settings, declared.only_with, None):
        return False
    if declared.only_where and not find_spec(declared.only_where):
        log.warning(
            "%s is left out: this installation has no %s. Hold it where `make setup` has run.",
            declared.name,
            declared.only_where,
        )
        return False
    return True


def load_flows(declaration: Declaration) -> dict[str, Flow]:
    """Import every entrypoint and check its parameters; flows by entrypoint.

    Raises SettingsError with all that can't be imported or does not fit: Prefect itself would
    deploy them and let each run fail.
    """
    from prefect.exceptions import ParameterTypeError
    from prefect.flows import load_flow_from_entrypoint

    flows, wrong = {}, []
    for deployment in declaration.deployments:
        try:
            flow = load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)
            for parameters in (deployment.parameters, *_of_schedules(deployment)):
                # What an operator has to fill in is missing here, and only there.
                if parameters:
                    flow.validate_parameters(dict(parameters))
            flows[deployment.entrypoint] = flow
        except ParameterTypeError as error:
            wrong.append(f"{deployment.entrypoint}: its parameters do not fit ({error})")
        except Exception as error:
            # Whatever importing somebody's module may raise.
            wrong.append(f"{deployment.entrypoint}: {type(error).__name__}: {error}")
    if wrong:
        raise SettingsError(
            f"Reading the flows of prefect.yaml: {'; '.join(wrong)}.",
            hint="Nothing was changed on the server.",
        )
    return flows


def _of_schedules(deployment: DeploymentDeclaration) -> list[Mapping[str, Any]]:
    return [{**deployment.parameters, **s.parameters} for s in deployment.schedules if s.parameters]


def apply(
    settings: Settings,
    file: Path = DECLARATION,
    automations_file: Path = automations.DECLARATION,
) -> Applied:
    """Make the server have what is declared for this platform, automations too. Safe to run again,
    and by several at once.

    Only what has our tag and this platform's is ever removed. Raises SettingsError for every
    mistake, PreconditionError if no server is configured, and TransientError if it does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    declaration = read_declaration(settings, file)
    flows = load_flows(declaration)
    wanted = automations.read_wanted(settings, declaration, automations_file)
    if not PREFECT_API_URL.value():
        raise PreconditionError(
            "Applying prefect.yaml: no Prefect server is configured.",
            hint="Set PREFECT_API_URL, e.g. http://127.0.0.1:4200/api, and PREFECT_API_AUTH_STRING "
            "if it asks for a password. Nothing was changed.",
        )
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
        if problem is not None:
            raise TransientError(
                f"Applying prefect.yaml: {PREFECT_API_URL.value()} does not answer ({problem}).",
                hint="Start the server, or look at PREFECT_API_URL. Nothing was changed.",
            )
        try:
            done = _apply(client, declaration, flows, settings.platform)
            return done.model_copy(update={"automations": automations.apply(client, wanted)})
        except PrefectHTTPStatusError as error:
            raise _refusal(error) from error


def _refusal(error: PrefectHTTPStatusError) -> PermanentError:
    status, said = error.response.status_code, error.response.text[:300]
    doing = f"Applying prefect.yaml: the server refuses with {status} ({said})."
    if status in (401, 403):
        return PreconditionError(doing, hint="Look at PREFECT_API_AUTH_STRING.")
    return PermanentError(doing, hint="What was applied before it stays; run it again.")


def _apply(
    client: SyncPrefectClient, declaration: Declaration, flows: Mapping[str, Flow], platform: str
) -> Applied:
    from prefect.exceptions import ObjectAlreadyExists

    pools_made = _make_pools(client, {d.work_pool.name for d in declaration.deployments})
    deployed = []
    for declared in declaration.deployments:
        flow = flows[declared.entrypoint]
        # Every worker of a platform applies this when it starts, several at the same moment: what
        # another one makes meanwhile is refused once, and replaced by the second try.
        try:
            _deploy(client, declared, flow)
        except ObjectAlreadyExists:
            _deploy(client, declared, flow)
        deployed.append(declared.name)
    return Applied(
        deployed=tuple(deployed),
        removed=_remove_undeclared(client, platform, keep=set(deployed)),
        pools_made=pools_made,
    )


def _make_pools(client: SyncPrefectClient, names: set[str]) -> tuple[str, ...]:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    missing = sorted(names - {pool.name for pool in client.read_work_pools()})
    for name in missing:
        # The workers of two pools may come here at the same moment.
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE))
    return tuple(missing)


def _deploy(client: SyncPrefectClient, declared: DeploymentDeclaration, flow: Flow) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule

    limit = declared.concurrency_limit
    # To create one that exists replaces it with all its schedules; to update it would add to them.
    client.create_deployment(
        flow_id=client.create_flow(flow),
        name=declared.name,
        description=declared.description,
        tags=list(declared.tags),
        entrypoint=declared.entrypoint,
        parameters=dict(declared.parameters),
        parameter_openapi_schema=flow.parameters.model_dump(exclude_unset=True),
        enforce_parameter_schema=declared.enforce_parameter_schema,
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=ConcurrencyOptions(
            collision_strategy=limit.collision_strategy,
            grace_period_seconds=limit.grace_period_seconds,
        )
        if limit
        else None,
        work_pool_name=declared.work_pool.name,
        work_queue_name=declared.work_pool.work_queue_name,
        job_variables=dict(declared.work_pool.job_variables),
        paused=False,
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=schedule.cron, timezone=schedule.timezone),
                active=schedule.active,
                slug=schedule.slug,
                parameters=dict(schedule.parameters),
            )
            for schedule in declared.schedules
        ],
    )


def _remove_undeclared(
    client: SyncPrefectClient, platform: str, *, keep: set[str]
) -> tuple[str, ...]:
    from prefect.exceptions import ObjectNotFound

    removed = []
    for deployment in _ours(client, platform):
        if deployment.name not in keep:
            with contextlib.suppress(ObjectNotFound):
                client.delete_deployment(deployment.id)
            removed.append(deployment.name)
    return tuple(removed)


def _ours(client: SyncPrefectClient, platform: str) -> list[DeploymentResponse]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[MANAGED, platform]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=ours, offset=len(found)):
        found += page
    return found
