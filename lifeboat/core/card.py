"""The bootstrap card: one page with all that a blank machine needs, for the wall and the envelope.

Pure. It has names, places and commands, and never a secret: only what a secret is known by.
"""

from __future__ import annotations

import shlex
import textwrap
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.points import Asset

WIDTH = 78

SECRETS_FILE = "/root/lifeboat-secrets.env"
"""Out of which the services that make backups read the secrets, as the guide sets them up."""

_BLANK = "_" * 40

PhoneNumber = Annotated[
    str,
    Field(
        pattern=r"^\+?\d[\d ().-]*\d( ?(x|ext\.?) ?\d+)?$",
        min_length=3,
        max_length=40,
        description="Phone number that can be dialled as it stands, e.g. +1-555-0101.",
    ),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Contact(_Section):
    """Whom to call."""

    role: str = Field(min_length=1, max_length=40, description="E.g. DevOps Lead (primary).")
    name: str = Field(default="", max_length=40, description="Name of the person or company.")
    phone: PhoneNumber


class CardSettings(_Section):
    """What the card says besides what Lifeboat knows: the section `card` of lifeboat.yaml."""

    lifeboat_repository: str = Field(
        default="",
        description="URL of Lifeboat's own git repository, as a blank machine reaches it; empty: "
        "the one that this Lifeboat was cloned from.",
    )
    contacts: tuple[Contact, ...] = Field(
        default=(),
        max_length=20,
        description="The plan's Emergency Contacts, the first to call first.",
    )


class CardPoint(_Section):
    """The newest recovery point of an asset in S3."""

    asset: Asset
    point: str
    verified_at: datetime | None

    @property
    def proof(self) -> str:
        if self.verified_at is None:
            return "NEVER VERIFIED by a restore"
        return f"restored and verified {self.verified_at:%Y-%m-%d %H:%M} UTC"


class Step(_Section):
    """One thing to do, in words and, below them, as it is typed."""

    title: str
    says: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


class Card(_Section):
    """The content of the card. All times are UTC."""

    platform: str
    environment: str
    printed_at: datetime
    bucket: str
    endpoint: str  # empty: Amazon's own
    region: str
    prefix: str
    into: str  # the platform's directory on the lost server
    programs: tuple[str, ...]
    lifeboat_repository: str  # empty: not known
    lifeboat_version: str
    secrets: tuple[str, ...] = Field(min_length=1)  # their names, the vault's password first
    fingerprint: str  # of the vault's password
    points: tuple[CardPoint, ...]
    points_trouble: str = ""  # why the points are not known
    needed_bytes: int | None
    contacts: tuple[Contact, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """The one command, line by line."""
        options = [("--bucket", self.bucket)]
        options += [("--endpoint", self.endpoint)] if self.endpoint else []
        options += [("--region", self.region)]
        options += [("--prefix", self.prefix)] if self.prefix else []
        options += [("--into", self.into)]
        lines = ["lifeboat recover server"]
        lines += [f"  {option} {shlex.quote(value)}" for option, value in options]
        return tuple(f"{line} \\" for line in lines[:-1]) + (lines[-1],)

    @property
    def check_command(self) -> str:
        return f"lifeboat card --check-secret {self.fingerprint} --platform {self.platform}"

    @property
    def steps(self) -> tuple[Step, ...]:
        """What to do, from the first minute on."""
        first = self.contacts[0] if self.contacts else None
        call = f"Call {first.role}, {first.phone}." if first else "Call the first contact below."
        space = f"{self.needed_bytes / 1e9:.1f} GB free, " if self.needed_bytes else ""
        repository = shlex.quote(self.lifeboat_repository or "<repository of Lifeboat>")
        return (
            Step(
                title="Breathe. Nothing gets worse while you read.",
                says=(
                    f"{call} Leave the old server's disks and the bucket alone: what is in them "
                    "is all there is.",
                ),
            ),
            Step(
                title="Take a blank machine",
                says=(f"{space}a way to the bucket, and: {'; '.join(self.programs)}.",),
                types=("apt-get update && apt-get install -y git make python3-venv",),
            ),
            Step(
                title="Fetch Lifeboat",
                types=(
                    f"git clone {repository} lifeboat",
                    "cd lifeboat && make setup && . .venv/bin/activate",
                ),
            ),
            Step(
                title="Give it the secrets out of the envelope",
                says=(
                    "In bash; nothing shows while you type. The file is for the services that back "
                    "up afterwards. The last line takes some seconds and says whether the password "
                    "is the right one.",
                ),
                types=(
                    f"install -m 600 /dev/null {SECRETS_FILE}",
                    *_loop_head(self.secrets),
                    '  read -rsp "$name: " $name; export $name; echo',
                    f"  printf '%s=%q\\n' $name \"${{!name}}\" >> {SECRETS_FILE}; done",
                    self.check_command,
                ),
            ),
            Step(
                title="The one command",
                says=(f"It shows its plan first, and waits until you type: {self.platform}",),
                types=self.command,
            ),
            Step(
                title="Afterwards",
                says=(
                    "Green means recovered: eighteen checks passed. Then move the name or address "
                    "to this machine and tell people. Interrupted? Run the same command again.",
                ),
            ),
        )

    @property
    def where(self) -> tuple[tuple[str, str], ...]:
        """The place of the vault, as names and values."""
        return (
            ("bucket", self.bucket),
            ("endpoint", self.endpoint or "Amazon S3"),
            ("region", self.region),
            ("prefix", self.prefix or "none"),
        )

    def text(self) -> str:
        """The card for a terminal, or for paper with nothing but a line printer."""
        parts = [
            f"BOOTSTRAP CARD  {self.platform} ({self.environment})",
            f"printed {self.printed_at:%Y-%m-%d %H:%M} UTC by Lifeboat {self.lifeboat_version}",
            "",
            _heading("The server is gone: do this, from top to bottom"),
        ]
        for number, step in enumerate(self.steps, start=1):
            parts.append(f"{number}. {step.title}")
            parts += [line for says in step.says for line in _wrapped(says)]
            parts += ["", *(f"      {line}" for line in step.types)] if step.types else []
            parts.append("")
        parts.append(_heading("The vault"))
        parts += [f"   {name:9} {value}" for name, value in self.where]
        parts += ["", *(f"   {told.point:28} {told.proof}" for told in self.points)]
        parts += [] if self.points else _wrapped(self.no_points)
        parts += ["", _heading("The secrets")]
        parts += [f"   {name}" for name in self.secrets]
        parts += ["", f"   fingerprint of {self.secrets[0]}: {self.fingerprint}"]
        parts += _wrapped(self.secret_in_words)
        parts += ["", f"   kept at    {_BLANK}", f"   kept by    {_BLANK}", ""]
        parts.append(_heading("Emergency contacts"))
        parts += [f"   {c.role:32} {c.phone:20} {c.name}".rstrip() for c in self.contacts]
        parts += [] if self.contacts else [f"   {_BLANK}"] * 3
        return "\n".join(parts) + "\n"

    @property
    def gaps(self) -> tuple[str, ...]:
        """What the card should say and does not, each with what to do about it."""
        found = []
        if not self.lifeboat_repository:
            found.append(
                "Where Lifeboat is cloned from is not known: set card.lifeboat_repository in "
                "lifeboat.yaml."
            )
        if not self.contacts:
            found.append("There are no contacts: set card.contacts in lifeboat.yaml.")
        if self.points_trouble:
            found.append(f"The recovery points could not be read: {self.points_trouble}")
        there = {point.asset for point in self.points}
        for asset in Asset:
            if asset not in there and not self.points_trouble:
                found.append(
                    f"S3 holds no point of {asset}: without it no server comes back. Run `lifeboat "
                    f"backup {asset}`."
                )
        found += [
            f"{point.point} was never verified: run `lifeboat test-restore`."
            for point in self.points
            if point.verified_at is None
        ]
        return tuple(found)

    @property
    def no_points(self) -> str:
        """What is said in their place."""
        return f"Recovery points: {self.points_trouble or 'there is none yet'}"

    @property
    def secret_in_words(self) -> str:
        return (
            "This card does not hold them, and nobody can work them out from it. Without the "
            "vault's password everything is lost."
        )


def _loop_head(names: tuple[str, ...]) -> tuple[str, ...]:
    """`for name in ... do`, in lines that fit."""
    begin = "for name in "
    lines = textwrap.wrap(
        f"{' '.join(names)}; do",
        WIDTH - 20,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
    )
    return (*(f"{line} \\" for line in lines[:-1]), lines[-1])


def _heading(text: str) -> str:
    return f"--- {text} ".ljust(WIDTH, "-")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="   ")
