"""deployments/automations.yaml on a Prefect server: it tells people what no run could tell them.

The server sends by Apprise itself, so that people hear of it also when every worker is dead. The
channels of lifeboat.yaml are blocks there, whose addresses the server keeps encrypted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter

from lifeboat.core.automation import (
    Automation,
    Automations,
    RunEnters,
    RunStays,
    Silence,
    WorkerAway,
)
from lifeboat.core.deployment import MANAGED, Declaration, fill_variables
from lifeboat.core.errors import SettingsError
from lifeboat.settings import Settings, read_model
from lifeboat.tools import cron, notify
from lifeboat.tools.report import seconds_in_words

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

log = logging.getLogger("lifeboat")

DECLARATION = Path(__file__).parents[2] / "deployments" / "automations.yaml"

# After these a run has begun, or will not begin any more.
_BEGUN = ("Running", "Paused", "Completed", "Failed", "Crashed", "Cancelled", "Cancelling")
# The block that takes any address that Apprise knows; a block type of our own would have to be
# installed where the server runs.
_BLOCK = "slack-webhook"
_KEPT_SILENCES = timedelta(days=1)


class Wanted(BaseModel):
    """What there should be for one platform: messages for each way to somebody."""

    model_config = ConfigDict(frozen=True)

    platform: str
    channels: dict[str, str]  # addresses by the names of their blocks
    texts: tuple[tuple[str, str, str, str], ...]  # name, description, subject, body
    triggers: tuple[dict[str, Any], ...]


class AppliedAutomations(BaseModel):
    """What `apply` did, by the names of automations."""

    model_config = ConfigDict(frozen=True)

    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    forgetful: bool = False  # the server tells nobody what was missed while it was away


def read_wanted(settings: Settings, deployments: Declaration, file: Path = DECLARATION) -> Wanted:
    """Read the declaration for one platform, and the addresses of its channels with their secrets.

    Raises SettingsError with every mistake, before anything is changed. Without a channel there is
    nothing to tell anybody by, and nothing is wanted.
    """
    declared = read_model(
        file, Automations, what=file.name, where_hint="It lies in `deployments` of Lifeboat."
    )
    channels = _channels(settings)
    texts, triggers = [], []
    for automation in declared.automations:
        for name, trigger, known in _triggers_of(automation, settings, deployments):
            known = {"LIFEBOAT_PLATFORM": settings.platform, **known}
            description, subject, body = (
                fill_variables(text, known, what=file.name)
                for text in (automation.description, automation.subject, automation.body)
            )
            texts.append((f"{settings.platform}.{name}", description, subject, body))
            triggers.append(trigger)
    return Wanted(
        platform=settings.platform,
        channels=channels,
        texts=tuple(texts) if channels else (),
        triggers=tuple(triggers) if channels else (),
    )


def _channels(settings: Settings) -> dict[str, str]:
    found = {}
    for channel in settings.alarms.channels:
        # What the server allows in the name of a block.
        name = re.sub(r"[^a-z0-9]+", "-", f"{settings.platform}-channel-{channel.name}".lower())
        if name in found:
            raise SettingsError(
                f"Reading alarms.channels: {channel.name} can't be told from another channel.",
                hint="Their names have to differ by letters or numbers. Nothing was changed.",
            )
        url = settings.fill(channel.url)
        notify.require_known(url, doing=f"Reading the address of {channel.name}")
        found[name] = notify.bounded(url, settings.alarms.timeout_seconds)
    return found


def _triggers_of(
    automation: Automation, settings: Settings, deployments: Declaration
) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Each as its name, Prefect's trigger, and what its texts may name besides."""
    runs = {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        # Both: another platform's runs have the first one too.
        "match_related": [
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}
            for tag in (MANAGED, settings.platform)
        ],
        "for_each": ["prefect.resource.id"],
    }
    if isinstance(automation, RunEnters):
        expect = [f"prefect.flow-run.{state}" for state in automation.states]
        yield automation.name, {"posture": "Reactive", "expect": expect, **runs}, {}
    elif isinstance(automation, RunStays):
        yield (
            automation.name,
            {
                "posture": "Proactive",
                "after": [f"prefect.flow-run.{state}" for state in automation.states],
                "expect": [f"prefect.flow-run.{state}" for state in _BEGUN],
                "within": automation.within_seconds,
                **runs,
            },
            {},
        )
    elif isinstance(automation, WorkerAway):
        yield (
            automation.name,
            {
                "posture": "Proactive",
                "after": ["prefect.work-queue.not-ready"],
                "expect": ["prefect.work-queue.ready"],
                "within": automation.within_seconds,
                # Each queue by itself: the worker of the other pool coming back is no answer.
                "for_each": ["prefect.resource.id"],
                "match": {
                    "prefect.resource.id": "prefect.work-queue.*",
                    "prefect.resource.name": settings.platform,
                },
            },
            {},
        )
    else:
        yield from _silences(automation, settings, deployments)


def _silences(
    automation: Silence, settings: Settings, deployments: Declaration
) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    for what in automation.of:
        every = _every_seconds(what, settings.platform, deployments)
        if every is None:
            log.warning("%s has no active schedule: nobody is told when it is missing.", what)
            continue
        window = automation.window_seconds(
            every_seconds=every,
            late_factor=settings.watch.late_factor,
        )
        resource = f"lifeboat.{settings.platform}.{automation.resource or what}"
        trigger = {
            "posture": "Proactive",
            "expect": [automation.event],
            "match": {"prefect.resource.id": resource},
        }
        name = automation.name if len(automation.of) == 1 else f"{automation.name}-{what}"
        known = {"WHAT": what, "WINDOW": seconds_in_words(window)}
        # After the last one; told once, and then again only after there was one.
        after = {"after": [automation.event], "for_each": ["prefect.resource.id"]}
        yield name, {**trigger, **after, "within": window}, known
        # And one that never was, or still is not.
        again = max(window, settings.alarms.again_hours * 3600)
        known = {"WHAT": what, "WINDOW": seconds_in_words(again)}
        yield f"{name}-still", {**trigger, "within": again}, known


def _every_seconds(what: str, platform: str, deployments: Declaration) -> float | None:
    """The longest time between two runs that its schedules make; None if it has none."""
    doing = f"Reading the silence of {what}"
    name = f"{platform}.{what}"
    found = next((d for d in deployments.deployments if d.name == name), None)
    if found is None:
        raise SettingsError(
            f"{doing}: prefect.yaml declares no {name}.",
            hint="What is not there can't be missed: take it out of automations.yaml.",
        )
    lines = [schedule.cron for schedule in found.schedules if schedule.active]
    if not lines:
        return None
    try:
        return min(cron.longest_gap_seconds(line) for line in lines)
    except ValueError as error:
        raise SettingsError(f"{doing}: {error}.") from error


def apply(client: SyncPrefectClient, wanted: Wanted) -> AppliedAutomations:
    """Make the server tell what is wanted, and no more of ours. One that is as it should be stays
    untouched: to write it again would make the server forget how long something was silent.

    Several may do this at once: none is left twice, or people would be told twice.
    """
    ours = _one_of_each(client, wanted.platform)
    blocks = {name: _keep_block(name, url) for name, url in wanted.channels.items()}
    changed, unchanged = [], []
    for text, trigger in zip(wanted.texts, wanted.triggers, strict=True):
        automation = _automation(wanted.platform, text, trigger, tuple(blocks.values()))
        there = ours.get(automation.name)
        if there is None:
            client.create_automation(automation)
        elif _essence(there) != _essence(automation):
            client.update_automation(there.id, automation)
        else:
            unchanged.append(automation.name)
            continue
        changed.append(automation.name)
    removed = sorted(ours.keys() - {text[0] for text in wanted.texts})
    for name in removed:
        _delete(client, ours[name])
    _one_of_each(client, wanted.platform)
    before = {block for a in ours.values() for block in _blocks_of(a)}
    for block in before - set(blocks.values()):
        _drop_block(client, block)
    return AppliedAutomations(
        changed=tuple(changed),
        unchanged=tuple(unchanged),
        removed=tuple(removed),
        forgetful=bool(wanted.texts) and forgets_silences(client),
    )


def forgets_silences(client: SyncPrefectClient) -> bool:
    """Whether the server forgets a silence that was over while the server itself was away.

    By default it does after a minute, before it has told anybody. A server that does not say so is
    taken for one that does not.
    """
    try:
        told = client.request("GET", "/admin/settings").json()
        kept = TypeAdapter(timedelta).validate_python(
            told["server"]["events"]["expired_bucket_buffer"]
        )
    except Exception as error:
        # Whatever a newer or a foreign server answers: nothing depends on it.
        log.debug("The server's settings can't be read: %s", error)
        return False
    return kept < _KEPT_SILENCES


def _one_of_each(client: SyncPrefectClient, platform: str) -> dict[str, Any]:
    """Ours by their names. Whoever comes last sees what was made twice, and removes the same."""
    kept: dict[str, Any] = {}
    for automation in sorted(_tagged(client, platform), key=lambda found: str(found.id)):
        if not _is_ours(automation, platform):
            continue
        if automation.name in kept:
            _delete(client, automation)
        kept.setdefault(automation.name, automation)
    return kept


def _delete(client: SyncPrefectClient, automation: Any) -> None:
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        client.delete_automation(automation.id)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != 404:
            raise
        log.info("%s is gone already.", automation.name)


def _tagged(client: SyncPrefectClient, platform: str) -> list[Any]:
    from prefect.events.filters import AutomationFilter, AutomationFilterTags

    # The server chooses: with many platforms on it there are a thousand.
    ours = AutomationFilter(tags=AutomationFilterTags(all_=[MANAGED, platform]))
    # By id: what somebody makes meanwhile moves one from a page to the next, and it comes twice.
    found: dict[UUID, Any] = {}
    offset = 0
    while page := client.read_automations(automations=ours, offset=offset):
        found |= {automation.id: automation for automation in page}
        offset += len(page)
    return list(found.values())


def _is_ours(automation: Any, platform: str) -> bool:
    return automation.name.startswith(f"{platform}.") and MANAGED in automation.tags


def _automation(
    platform: str,
    text: tuple[str, str, str, str],
    trigger: dict[str, Any],
    blocks: tuple[UUID, ...],
) -> AutomationCore:
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    name, description, subject, body = text
    within = {"within": timedelta(seconds=trigger["within"])} if "within" in trigger else {}
    event: EventTrigger = EventTrigger.model_validate({**trigger, **within})
    return AutomationCore(
        name=name,
        description=description,
        enabled=True,
        tags=[MANAGED, platform],
        trigger=event,
        actions=[
            SendNotification(block_document_id=block, subject=subject, body=body)
            for block in blocks
        ],
    )


def _essence(automation: Any) -> Any:
    """All that is declared of an automation, in a form that can be compared."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != "id"}
        if isinstance(value, list):
            # As a set would be: of none of them the order matters.
            return sorted((plain(item) for item in value), key=repr)
        return value

    told = automation.model_dump(mode="json")
    names = ("name", "description", "enabled", "tags", "trigger", "actions")
    return plain({name: told[name] for name in names})


def _blocks_of(automation: Any) -> Iterator[UUID]:
    for action in automation.actions:
        if block := getattr(action, "block_document_id", None):
            yield block


def _keep_block(name: str, url: str) -> UUID:
    """The block that sends to this address. Given a new address, it stays the same block."""
    from prefect.blocks.notifications import SlackWebhook
    from prefect.exceptions import ObjectAlreadyExists

    block = SlackWebhook(url=url, notify_type="failure")
    try:
        return block.save(name, overwrite=True)
    except ObjectAlreadyExists:  # another one saved it since it was found missing
        return block.save(name, overwrite=True)


def _drop_block(client: SyncPrefectClient, block: UUID) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.delete_block_document(block)
    except ObjectNotFound:
        log.info("The block %s of a channel is gone already.", block)
