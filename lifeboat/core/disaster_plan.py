"""The disaster recovery plan of one platform, as a document: to read, to print, for the safe.

Pure: the chapters are those of the plan that people used to write by hand; names, schedules and
times are what is so. It never holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lifeboat.core.checks import CHECKLIST
from lifeboat.core.followups import FollowUp, Horizon
from lifeboat.core.review_evidence import ContactSeen
from lifeboat.core.review_kinds import ABOUT, Wanted


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Block(_Frozen):
    """A part of the document. A table's first row is its head."""

    kind: Literal["title", "chapter", "section", "text", "list", "boxes", "code", "table"]
    text: str = ""
    items: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class Scheduled(_Frozen):
    """Something that runs by itself: by Prefect's schedule, or as often as the keeper does it."""

    name: str
    about: str
    schedule: str
    keeper: str = ""


class Chapter(_Frozen):
    """One scenario: how it shows, what to type, what the flow does, how long that takes."""

    title: str
    symptoms: tuple[str, ...]
    commands: tuple[str, ...]
    flow: str  # the deployment; empty: none
    steps: tuple[str, ...]
    if_it_fails: str
    takes: tuple[str, ...]  # measured, each with its basis


class Content(_Frozen):
    """All that the plan says of this platform."""

    platform: str
    environment: str
    written_at: datetime
    version: str
    rto: str
    rpo: str
    critical: tuple[str, ...]
    deferred: tuple[str, ...]
    scheduled: tuple[Scheduled, ...]
    retention: str
    places: tuple[tuple[str, str], ...]
    scenarios: tuple[Chapter, ...]
    shell: tuple[str, ...]  # what makes the commands work in a shell of this host
    channels: tuple[str, ...]
    people: tuple[str, ...]
    external: tuple[str, ...]
    actions: tuple[FollowUp, ...]
    contacts: tuple[ContactSeen, ...]
    reviews: tuple[Wanted, ...]
    commands: tuple[tuple[str, str], ...]
    files: tuple[str, ...]


SYMPTOMS: Mapping[str, tuple[str, ...]] = {
    "recover-database": (
        "Database connection errors",
        "The application can't read or write data",
        "Health checks fail",
        "Or: data is wrong since a moment, somebody deleted or overwrote it",
    ),
    "recover-server": ("The server does not respond", "All services are down", "Hardware failure"),
    "provision-server": ("As before, and there is no other machine",),
    "recover-files": (
        "Uploads or downloads fail",
        "CAD files are missing or damaged",
        "The storage service reports errors",
    ),
    "recover-models": (
        "AI inference fails",
        "Trained models are missing",
        "Models can't be loaded",
    ),
    "recover-bucket": (
        "Objects in the bucket are gone or unreadable",
        "`lifeboat watch` says that the vault does not open, or that points are missing",
    ),
    "recover-orchestrator": (
        "Prefect's server does not start, or has lost its history or its deployments",
        "The platform itself works: nothing of this is urgent for its users",
    ),
}
TITLES: Mapping[str, str] = {
    "recover-database": "Scenario 1: Database server failure",
    "recover-server": "Scenario 2: Complete server failure",
    "provision-server": "Scenario 2 without a machine: one is made",
    "recover-files": "Scenario 3: File storage corruption",
    "recover-models": "Scenario 4: AI model loss",
    "recover-bucket": "The bucket was deleted or overwritten",
    "recover-orchestrator": "Prefect's own database is lost",
}
"""Every recovery flow, in the order of the plan."""


def document(content: Content) -> tuple[Block, ...]:
    """The whole plan, chapter by chapter."""
    return (
        Block(kind="title", text=f"Disaster recovery plan of {content.platform}"),
        Block(
            kind="text",
            text=f"Written by Lifeboat {content.version} on {content.written_at:%Y-%m-%d %H:%M} "
            f"UTC from the settings, schedules and records of {content.platform} "
            f"({content.environment}). `lifeboat plan` writes it anew.",
        ),
        *_objectives(content),
        *_backups(content),
        Block(kind="chapter", text="Disaster scenarios and recovery procedures"),
        Block(
            kind="text",
            text="Nobody knows what is wrong? `lifeboat diagnose` looks at everything, changes "
            "nothing, and says which scenario fits. Each recovery shows its plan first and waits "
            f"until the platform's name is typed: {content.platform}. Nothing is overwritten; "
            "damaged data is moved aside. An interrupted recovery is run again.",
        ),
        Block(kind="text", text="In a shell of this host all commands need this before them:"),
        Block(kind="code", items=content.shell),
        *(block for chapter in content.scenarios for block in _scenario(chapter)),
        *_verification(),
        *_communication(content),
        *_afterwards(content),
        *_people(content),
        *_maintenance(content),
        *_appendix(content),
    )


def _objectives(content: Content) -> tuple[Block, ...]:
    return (
        Block(kind="chapter", text="Objectives"),
        Block(
            kind="list",
            items=(
                f"RTO (Recovery Time Objective): at most {content.rto} down",
                f"RPO (Recovery Point Objective): at most {content.rpo} of data lost",
                f"Critical services, started first: {', '.join(content.critical)}",
                f"Restored later: {', '.join(content.deferred) or 'none'}",
            ),
        ),
    )


def _backups(content: Content) -> tuple[Block, ...]:
    rows = tuple((s.name, s.about, s.schedule, s.keeper or "-") for s in content.scheduled)
    return (
        Block(kind="chapter", text="Backup strategy"),
        Block(kind="text", text=content.retention),
        Block(kind="table", rows=(("what", "where"), *content.places)),
        Block(kind="section", text="What runs by itself"),
        Block(
            kind="table",
            rows=(("deployment", "what it does", "Prefect", "without a server"), *rows),
        ),
    )


def _scenario(chapter: Chapter) -> tuple[Block, ...]:
    how = f"In the Prefect UI run the deployment `{chapter.flow}`; in" if chapter.flow else "In"
    return (
        Block(kind="section", text=chapter.title),
        Block(kind="text", text="It shows as:"),
        Block(kind="list", items=chapter.symptoms),
        Block(kind="text", text=f"{how} a shell:"),
        Block(kind="code", items=chapter.commands),
        Block(kind="text", text="What it does:"),
        Block(kind="list", items=chapter.steps),
        Block(kind="text", text=f"If it fails: {chapter.if_it_fails}"),
        Block(kind="text", text="How long it takes, as measured:"),
        Block(kind="list", items=chapter.takes),
    )


def _verification() -> tuple[Block, ...]:
    found = [
        Block(kind="chapter", text="Recovery verification checklist"),
        Block(
            kind="text",
            text="Every recovery runs all of it by itself; recovered means that all passed. By "
            "hand: `lifeboat verify`.",
        ),
    ]
    for section, names in CHECKLIST.items():
        found += [Block(kind="section", text=section), Block(kind="boxes", items=names)]
    return tuple(found)


def _communication(content: Content) -> tuple[Block, ...]:
    channels = content.channels or ("none is set up: see `alarms` in lifeboat.yaml",)
    return (
        Block(kind="chapter", text="Communication plan"),
        Block(kind="section", text="Internal"),
        Block(
            kind="list",
            items=(
                "Incident Commander: decides, and talks to the others",
                "Technical Team: recovers",
                "Management: is told when it begins, when a recovery fails, and when it ends",
                "Support: tells customers",
            ),
        ),
        Block(kind="section", text="People, by role"),
        Block(
            kind="list",
            items=content.people or ("nobody is named: see `people` in lifeboat.yaml",),
        ),
        Block(kind="section", text="External"),
        Block(
            kind="list",
            items=content.external
            or ("nothing is set up: see `communication` and `status_page` in lifeboat.yaml",),
        ),
        Block(kind="section", text="Channels by which Lifeboat tells people"),
        Block(kind="list", items=channels),
        Block(
            kind="text",
            text="Tried with `lifeboat alarms test`, and all of it, people too, with `lifeboat "
            "incident test`.",
        ),
    )


def _afterwards(content: Content) -> tuple[Block, ...]:
    found = [
        Block(kind="chapter", text="Post-recovery actions"),
        Block(
            kind="text",
            text="Each recovery opens these as follow-ups with a date: `lifeboat followups`. Their "
            "owners are reminded until they are done.",
        ),
    ]
    for horizon in Horizon:
        ours = [action for action in content.actions if action.horizon is horizon]
        items = tuple(
            f"{one.title} ({one.owner}{', by Lifeboat' if one.by_machine else ''}): {one.how}"
            for one in ours
        )
        found += [Block(kind="section", text=str(horizon)), Block(kind="boxes", items=items)]
    return tuple(found)


def _people(content: Content) -> tuple[Block, ...]:
    rows = tuple(
        (one.who, one.phone, f"{one.confirmed_at:%Y-%m-%d}" if one.confirmed_at else "not known")
        for one in content.contacts
    )
    told = (
        Block(kind="table", rows=(("who", "phone", "last confirmed"), *rows))
        if rows
        else Block(kind="text", text="lifeboat.yaml names nobody: set `card.contacts`.")
    )
    return (Block(kind="chapter", text="Emergency contacts"), told)


def _maintenance(content: Content) -> tuple[Block, ...]:
    rows = tuple(
        (
            f"{ABOUT[wanted.kind].title}",
            f"every {wanted.every_days:g} days",
            wanted.owner,
            f"`lifeboat review sign-off {wanted.kind}`",
        )
        for wanted in content.reviews
    )
    return (
        Block(kind="chapter", text="Testing and maintenance"),
        Block(
            kind="text",
            text="An overdue one turns `lifeboat watch` red. `lifeboat reviews` lists them.",
        ),
        Block(kind="table", rows=(("what", "how often", "who", "signed off by"), *rows)),
    )


def _appendix(content: Content) -> tuple[Block, ...]:
    rows = tuple((f"`{command}`", about) for command, about in content.commands)
    return (
        Block(kind="chapter", text="Appendix"),
        Block(kind="section", text="Useful commands"),
        Block(kind="table", rows=(("command", "what it does"), *rows)),
        Block(kind="section", text="Configuration files"),
        Block(kind="list", items=tuple(f"`{file}`" for file in content.files)),
    )


def markdown(blocks: Sequence[Block]) -> str:
    """The document as Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    marks = {"title": "# ", "chapter": "## ", "section": "### ", "text": ""}
    if block.kind in marks:
        return f"{marks[block.kind]}{block.text}"
    if block.kind == "code":
        return "\n".join(("```sh", *block.items, "```"))
    if block.kind == "table":
        head, *rows = block.rows
        cells = [head, tuple("---" for _ in head), *rows]
        return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in cells)
    mark = "- [ ] " if block.kind == "boxes" else "- "
    return "\n".join(f"{mark}{item}" for item in block.items)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
