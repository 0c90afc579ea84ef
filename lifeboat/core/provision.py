"""A new machine for a lost server: what it is made like, what it does by itself, how it reports.

Pure. The section `provision` of lifeboat.yaml, the cloud-init user data, and the record in the
bucket by which the new machine says how far it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

USER_DATA_BYTES = 16384  # EC2's limit
HOME = "/opt/lifeboat"
LOG = "/var/log/lifeboat-recovery.log"
SCRIPT = "/usr/local/sbin/lifeboat-recovery"
_REPORTS = "records/provisions"
_MARK = "lifeboat-recovery"


def _is_network(value: str) -> str:
    return str(ip_network(value))


Cidr = Annotated[str, AfterValidator(_is_network)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ec2Settings(_Section):
    """The machine in EC2 that takes a lost server's place."""

    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region, eu-central-1.")
    image: str = Field(
        pattern=r"^ami-[0-9a-f]+$", description="Id of an AMI of Debian 12 or newer."
    )
    instance_type: str = Field(description="Type, as large as the lost server: m7i.xlarge.")
    subnet: str = Field(pattern=r"^subnet-[0-9a-f]+$", description="Subnet, and with it the VPC.")
    key_name: str | None = Field(default=None, description="Key pair with which to log in.")
    instance_profile: str = Field(
        min_length=1,
        description="Name of the instance profile that may read `secrets`, and nothing else.",
    )
    secrets: str = Field(
        pattern=r"^(ssm|secretsmanager):\S+$",
        description="Where the KEY=VALUE lines of the vault's password and the bucket's key are: "
        "`ssm:NAME` of a SecureString parameter, or `secretsmanager:NAME`. They are never in the "
        "user data.",
    )
    secrets_file: str = Field(
        default="/root/lifeboat-secrets.env",
        pattern=r"^/",
        description="File of the new machine that they are put into, mode 0600.",
    )
    root_device: str | None = Field(
        default=None, description="Name of the AMI's root device; without it EC2 is asked."
    )
    disk_gigabytes: int = Field(ge=8, description="Size of the disk.")
    ssh_from: tuple[Cidr, ...] = Field(default=(), description="Networks that may use SSH.")
    web_from: tuple[Cidr, ...] = Field(default=(), description="Networks that may use the web.")
    web_ports: tuple[int, ...] = Field(default=(80, 443), description="Ports of the web.")
    tags: dict[str, str] = Field(default={}, description="Tags of all that is made.")
    lifeboat_repository: str = Field(
        min_length=1, description="URL of Lifeboat's git repository, readable without a password."
    )
    lifeboat_revision: str = Field(default="", description="Tag or commit; empty: its newest.")
    wait_seconds: float = Field(
        default=10800, gt=0, description="How long the new machine may take to be recovered."
    )


class ProvisionSettings(_Section):
    """Where a new machine comes from when the server is lost."""

    ec2: Ec2Settings | None = Field(default=None, description="A machine in Amazon EC2.")


class Vault(_Section):
    """What the new machine has to know to find the vault and to take the place."""

    platform: str
    bucket: str
    endpoint: str = ""
    region: str
    prefix: str = ""
    into: str


def client_token(platform: str, incident: str) -> str:
    """The same for the same incident, so that a machine that is asked for twice is made once."""
    return hashlib.sha256(f"lifeboat {platform} {incident}".encode()).hexdigest()[:64]


def group_name(platform: str, incident: str) -> str:
    """The name of the incident's security group."""
    return f"lifeboat-{platform}-{incident}"[:255]


def recovery_command(vault: Vault, *, incident: str) -> str:
    """What the new machine runs: the command of the README, approved beforehand."""
    options = [("--bucket", vault.bucket)]
    options += [("--endpoint", vault.endpoint)] if vault.endpoint else []
    options += [("--region", vault.region)]
    options += [("--prefix", vault.prefix)] if vault.prefix else []
    options += [("--into", vault.into), ("--approve", vault.platform), ("--report", incident)]
    return "lifeboat recover server " + " ".join(f"{o} {shlex.quote(v)}" for o, v in options)


def preparing_script(ec2: Ec2Settings) -> str:
    """Docker, Compose and Lifeboat on a blank Debian; safe to run again."""
    repository, revision = shlex.quote(ec2.lifeboat_repository), ec2.lifeboat_revision
    checkout = f"git -C {HOME} checkout --quiet {shlex.quote(revision)}\n" if revision else ""
    return f"""\
export HOME=/root DEBIAN_FRONTEND=noninteractive
step="installing packages"
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends \\
  ca-certificates docker.io git make python3-venv supervisor
systemctl disable --now supervisor || true
systemctl enable --now docker
step="fetching Lifeboat from its repository"
[ -d {HOME}/.git ] || git clone --quiet -- {repository} {HOME}
{checkout}cd {HOME}
step="installing Lifeboat"
make setup
docker compose version > /dev/null 2>&1 || python3 -B scripts/fetch_compose.py
"""


def recovering_script(ec2: Ec2Settings, vault: Vault, *, incident: str) -> str:
    """The secrets out of their store, then the recovery; in the directory of Lifeboat."""
    file = shlex.quote(ec2.secrets_file)
    fetch = f"{shlex.quote(ec2.secrets)} --region {ec2.region} --to {file}"
    return f"""\
step="fetching the secrets"
lifeboat fetch-secrets {fetch}
step="reading the secrets"
set -a; . {file}; set +a
step="the recovery"
{recovery_command(vault, incident=incident)}
"""


# Until the recovery itself reports to the bucket nobody else could say that the script has ended.
_TELLING = f"""\
say() {{ echo "{_MARK} $(date -u +%FT%TZ) $*" | tee /dev/console || true; }}
trap 'code=$?; [ "$code" = 0 ] || say "FAILED at $step, exit code $code."' EXIT
step="the beginning"
say BEGAN.
"""


def user_data(ec2: Ec2Settings, vault: Vault, *, incident: str) -> str:
    """Cloud-init's user data, which holds no secret. Raises ValueError if it is too long."""
    script = (
        f"#!/bin/bash\n# Made by `lifeboat recover server`: {vault.platform}, {incident}.\n"
        f"set -euo pipefail\nexec > >(tee -a {LOG}) 2>&1\n"
        + _TELLING
        + preparing_script(ec2)
        + f"export PATH={HOME}/.venv/bin:$PATH\n"
        + recovering_script(ec2, vault, incident=incident)
    )
    told = {
        "write_files": [{"path": SCRIPT, "permissions": "0700", "content": script}],
        "runcmd": [[SCRIPT]],
    }
    # JSON is YAML, and leaves nothing to quote by hand.
    text = f"#cloud-config\n{json.dumps(told, indent=1)}\n"
    if len(text.encode()) > USER_DATA_BYTES:
        raise ValueError(f"the user data has more than {USER_DATA_BYTES} bytes")
    return text


# --- how far the new machine is ---------------------------------------------------------------


class State(StrEnum):
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


class Report(_Section):
    """What the new machine puts into the bucket at each step, and when it has ended."""

    incident: str
    host: str
    run: str
    state: State
    step: str
    error: str = ""
    checks_passed: int = 0
    checks_total: int = 0
    at: datetime

    def in_words(self) -> str:
        if self.state is State.DONE:
            return f"recovered: {self.checks_passed} of {self.checks_total} checks passed"
        if self.state is State.FAILED:
            return f"failed at {self.step}: {self.error}"
        return self.step


class Mark(_Section):
    """What the script says of itself on the console: that it began, or has ended too early."""

    at: datetime  # by the clock of the machine, as in its reports
    failed: str = ""  # at which step, and with which exit code; empty: it began


_MARKS = re.compile(
    rf"{_MARK} (\d{{4}}-\d\d-\d\dT[\d:]{{8}}Z) (?:BEGAN|FAILED at (.+?))\.\s*$",
    re.MULTILINE,
)


def last_mark(printed: str) -> Mark | None:
    """The newest mark in what the console shows; None if the script has not begun."""
    marks = [Mark(at=at, failed=failed or "") for at, failed in _MARKS.findall(printed)]
    return max(marks, key=lambda mark: (mark.at, mark.failed != ""), default=None)


def report_key(incident: str) -> str:
    """Where the report of an incident lies in the bucket."""
    return f"{_REPORTS}/{incident}.json"


OnFailure = Literal["keep", "end"]


class Machine(_Section):
    """A machine that was made, or found, for an incident."""

    id: str
    region: str
    group: str
    address: str = ""  # public where it has one, else private
    launched_at: datetime
    found: bool = False  # it was there already: the same incident

    def in_words(self) -> str:
        return f"instance {self.id} in {self.region}, security group {self.group}"

    @property
    def ending(self) -> str:
        """The commands that end it."""
        return end_commands(self.region, instance=self.id, group=self.group)


def end_commands(region: str, *, instance: str = "", group: str = "") -> str:
    """What to type to leave nothing behind that is paid for."""
    aws = f"aws ec2 --region {region}"
    words = []
    if instance:
        words += [f"{aws} terminate-instances --instance-ids {instance}"]
        words += [f"{aws} wait instance-terminated --instance-ids {instance}"] if group else []
    words += [f"{aws} delete-security-group --group-id {group}"] if group else []
    return " && ".join(words)
