"""A lost server's place on a machine that is made for it, which then recovers by itself.

This side makes the machine and waits; the machine says in the bucket how far it is. Whatever
happens, no machine is left without its id, its region and the command that ends it being said.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lifeboat.core import provision
from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)
from lifeboat.core.forms import ProvisionServer, RecoverServer
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import RecoveryPoint
from lifeboat.core.provision import Ec2Settings, Machine, Mark, Report, State, Vault
from lifeboat.core.timeline import Outcome, Phase
from lifeboat.settings import Settings
from lifeboat.tools import aws_secrets, filesystem
from lifeboat.tools.ec2 import Ec2Hosts, HostProvisioner
from lifeboat.tools.s3 import Bucket
from tasks import artifacts, clock, places, settings_in_vault
from tasks.orchestration import step
from tasks.record import Run, current_run, recorded

log = logging.getLogger("lifeboat")

_POLL_SECONDS = 5.0
_CONSOLE_SECONDS = 30.0  # between looks at the console
_CONSOLE_LINES = 12
_BLIND_SECONDS = 600.0  # after which looks that fail are given up
_ON_ITS_WAY = ("pending", "running")


class Wanted(BaseModel):
    """What is to be made, and for whom."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    ec2: Ec2Settings
    vault: Vault
    point: RecoveryPoint  # that the settings come from
    incident: str
    profile: str

    @property
    def hosts(self) -> HostProvisioner:
        return Ec2Hosts(
            self.ec2,
            platform=self.settings.platform,
            incident=self.incident,
            profile=self.profile,
        )

    @property
    def bucket(self) -> Bucket:
        told = self.vault
        return places.named_bucket(
            told.bucket, endpoint=told.endpoint, region=told.region, prefix=told.prefix
        )

    @property
    def user_data(self) -> str:
        return provision.user_data(self.ec2, self.vault, incident=self.incident)


@contextlib.contextmanager
def provisioning(request: ProvisionServer) -> Iterator[Run]:
    """Record it, and show it in the UI; there is no place yet to write the record to."""
    with (
        recorded("provision-server", platform=request.platform, directory=None) as run,
        artifacts.shown(run),
    ):
        yield run


@step(Phase.DECIDE, retries=2)
def read_wanted(request: ProvisionServer) -> Wanted:
    """Read from the bucket what machine the platform needs; nothing is made.

    Raises PreconditionError if the settings do not say, or the bucket holds another platform.
    """
    where = settings_in_vault.place(
        bucket=request.bucket,
        endpoint=request.endpoint,
        region=request.region,
        prefix=request.prefix,
    )
    found = settings_in_vault.read(where, into=Path(request.into or "/"))
    settings = found.settings
    if request.platform and request.platform != settings.platform:
        raise PreconditionError(
            f"Reading bucket {request.bucket}: it holds the platform {settings.platform!r}, not "
            f"{request.platform!r}.",
            hint="Nothing was made. Look at --bucket, --prefix and --approve.",
        )
    if settings.provision.ec2 is None:
        raise PreconditionError(
            f"Looking how to make a machine for {settings.platform}: the lifeboat.yaml of "
            f"{found.source.point.id} has no section provision.ec2.",
            hint="Nothing was made. Make a machine by hand and run `lifeboat recover server` on it "
            "(`lifeboat card` says what it needs).",
        )
    artifacts.belongs_to(settings)
    return Wanted(
        settings=settings,
        ec2=settings.provision.ec2,
        vault=Vault(
            platform=settings.platform,
            bucket=request.bucket,
            endpoint=request.endpoint,
            region=request.region,
            prefix=request.prefix,
            into=request.into or str(found.old_root),
        ),
        point=found.source.point,
        incident=request.incident or f"lost-{clock.now():%Y%m%d}",
        profile=request.aws_profile,
    )


@step(Phase.DECIDE, retries=2)
def plan(wanted: Wanted, request: ProvisionServer) -> RecoveryPlan:
    """What would be made, in words. The machine of the same incident is looked for."""
    ec2, vault = wanted.ec2, wanted.vault
    there = wanted.hosts.find()
    group = provision.group_name(vault.platform, wanted.incident)
    if there:
        made: tuple[str, ...] = (f"take {there.in_words()}, which this incident has already",)
    else:
        ssh = f"port 22 from {', '.join(ec2.ssh_from)}" if ec2.ssh_from else "no SSH"
        ports = ", ".join(map(str, ec2.web_ports))
        web = f"ports {ports} from {', '.join(ec2.web_from)}" if ec2.web_from else "no web"
        made = (
            f"make the security group {group} in {ec2.subnet}: {ssh}; {web}",
            f"make one {ec2.instance_type} of {ec2.image}, {ec2.disk_gigabytes} GB, encrypted, "
            f"with the instance profile {ec2.instance_profile}",
        )
    ended = "kept" if request.on_failure == "keep" else "ended"
    return RecoveryPlan(
        procedure="provision-server",
        platform=vault.platform,
        symptoms=f"the server is lost; a new machine takes its place (incident {wanted.incident})",
        points=(wanted.point,),
        target="the newest that the bucket holds",
        expected_loss="what was written after the last WAL that reached the bucket, and files "
        "newer than the last backup of the files",
        touches=(f"EC2 in {ec2.region}: what is made there is paid for",),
        steps=(
            *made,
            f"it installs Docker and Lifeboat, and takes its secrets out of {ec2.secrets}",
            f"it runs: {provision.recovery_command(vault, incident=wanted.incident)}",
            f"wait up to {ec2.wait_seconds / 60:.0f} min for its report in the bucket; if it "
            f"fails, the machine is {ended}",
        ),
        made_at=clock.now(),
    )


@step(Phase.FETCH, retries=1)
def make_machine(wanted: Wanted) -> Machine:
    """Make the machine, or take the one that this incident has. An error says what was left."""
    try:
        machine = wanted.hosts.make(wanted.user_data)
    except ValueError as error:
        raise PreconditionError(
            f"Making the user data: {error}.", hint="Nothing was made."
        ) from error
    current_run().fact(
        incident=wanted.incident,
        instance=machine.id,
        aws_region=machine.region,
        address=machine.address,
        to_end_it=machine.ending,
    )
    log.warning(
        "%s %s at %s. It is paid for until you type: %s",
        "Found" if machine.found else "Made",
        *(machine.in_words(), machine.address or "no address", machine.ending),
    )
    return machine


@step(Phase.RESTORE)
def wait_until_recovered(wanted: Wanted, machine: Machine, request: ProvisionServer) -> Report:
    """Wait until the machine says that it is recovered.

    Raises VerificationFailed if its checks did not pass, PermanentError if it failed, ended or was
    too slow; the machine is then kept or ended, as was asked for, and that is said. If it can't be
    looked at any more PermanentError too, and whatever was asked for, the machine is not touched:
    it may be recovering.
    """
    try:
        return _wait(wanted, machine)
    except _Blind as error:
        raise PermanentError(error.message, hint=error.hint) from error
    except RecoveryError as error:
        raise _told_of_the_machine(wanted, machine, error, request.on_failure) from error
    except KeyboardInterrupt:
        log.error(
            "Not waited for any longer: %s goes on. To end it: %s", machine.id, machine.ending
        )
        raise


class _Blind(PermanentError):
    """How the machine does can't be seen from here."""


def _wait(wanted: Wanted, machine: Machine) -> Report:
    hosts, mark, seen, failing = wanted.hosts, None, "", ""
    deadline = time.monotonic() + wanted.ec2.wait_seconds
    console_at, seen_at = -math.inf, time.monotonic()
    while True:
        now = time.monotonic()
        try:
            if now - console_at >= _CONSOLE_SECONDS:
                # Before the report: what ends tells the bucket first, and at greater length.
                mark, console_at = provision.last_mark(hosts.printed(machine)) or mark, now
            report = read_report(wanted.bucket, wanted.incident, since=machine)
            state = hosts.state_of(machine)
        except RecoveryError as error:
            if str(error) != failing:
                failing = str(error)
                log.warning("%s It is asked again.", failing)
            if now - seen_at > _BLIND_SECONDS or now > deadline:
                raise _blind(machine, error, now - seen_at) from error
            hosts = wanted.hosts  # with the credentials that there are by now
        else:
            seen_at, failing = now, ""
            if report and report.in_words() != seen:
                seen = report.in_words()
                log.info("%s: %s", machine.id, seen)
            if done := _judge(machine, report, mark, state):
                return done
            if now > deadline:
                raise _too_slow(wanted, machine, seen, hosts.printed(machine))
        time.sleep(_POLL_SECONDS)


_LOOK = f"Its log is {provision.LOG} there."


def _judge(machine: Machine, report: Report | None, mark: Mark | None, state: str) -> Report | None:
    """The report of the end; None while it goes on. Raises what ended the recovery."""
    if report and report.state is State.DONE:
        return report
    # A script that was begun anew has not reported yet.
    is_old = report and mark and not mark.failed and mark.at > report.at
    if report and report.state is State.FAILED and not is_old:
        failed = VerificationFailed if report.checks_total else PermanentError
        raise failed(f"Recovering on {machine.id}: {report.in_words()}", hint=_LOOK)
    # A mark has whole seconds.
    if mark and mark.failed and (not report or mark.at >= report.at.replace(microsecond=0)):
        raise PermanentError(
            f"Recovering on {machine.id}: its script ended at {mark.failed}.", hint=_LOOK
        )
    if state not in _ON_ITS_WAY:
        raise PermanentError(f"Waiting for {machine.id}: it is {state}.", hint=_LOOK)
    return None


def _too_slow(wanted: Wanted, machine: Machine, seen: str, printed: str) -> PermanentError:
    last = "\n".join(printed.splitlines()[-_CONSOLE_LINES:])
    return PermanentError(
        f"Waiting for {machine.id}: not recovered within {wanted.ec2.wait_seconds:g} s; "
        f"the last that it reported: {seen or 'nothing'}."
        + (f" It printed last: {last}" if last else ""),
        hint=_LOOK,
    )


def _blind(machine: Machine, error: RecoveryError, seconds: float) -> _Blind:
    return _Blind(
        f"Waiting for {machine.id}: for {seconds:.0f} s it could not be looked at. {error.message} "
        f"{machine.in_words()} was not touched, and may be recovering. It is paid for until you "
        f"type: {machine.ending}",
        hint=f"{error.hint} Then run it again with the same --incident: it is waited for again. "
        f"{_LOOK}".strip(),
    )


def _told_of_the_machine(
    wanted: Wanted, machine: Machine, error: RecoveryError, on_failure: provision.OnFailure
) -> RecoveryError:
    """The same error, with what became of the machine."""
    if on_failure == "end":
        try:
            wanted.hosts.end(machine)
        except RecoveryError as second:
            said = f"It was to be ended, and that failed: {second}"
        else:
            said = f"{machine.in_words()}: ended, as --on-failure says."
    else:
        said = (
            f"{machine.in_words()} is kept, and paid for, until you type: {machine.ending} Or mend "
            f"it there and run {provision.SCRIPT} again."
        )
    return type(error)(f"{error.message} {said}", hint=error.hint)


# --- the report, from both sides ---------------------------------------------------------------


def read_report(bucket: Bucket, incident: str, *, since: Machine | None = None) -> Report | None:
    """What the machine said last; None if it said nothing since it was launched."""
    key = provision.report_key(incident)
    if not bucket.exists(key):
        return None
    try:
        report = Report.model_validate_json(bucket.get(key))
    except ValidationError as error:
        raise PermanentError(
            f"Reading {key}: it is no report.", hint="Is the Lifeboat there a newer one?"
        ) from error
    return report if since is None or report.at >= since.launched_at else None


def report_to_bucket(request: RecoverServer, run: Run) -> None:
    """Let a run say in the bucket how far it is. A report that can't be written stops nothing."""
    bucket = places.named_bucket(
        request.bucket, endpoint=request.endpoint, region=request.region, prefix=request.prefix
    )
    run.when_step_begins(functools.partial(_report, bucket, request.report))
    run.when_finished(lambda done: _report(bucket, request.report, done, _last_step(done)))


def _last_step(run: Run) -> str:
    steps = run.record.steps
    return steps[-1].name.replace("-", " ") if steps else "the beginning"


def _report(bucket: Bucket, incident: str, run: Run, step: str) -> None:
    record = run.record
    state = {None: State.WORKING, Outcome.DONE: State.DONE}.get(record.outcome, State.FAILED)
    told = Report(
        incident=incident,
        host=socket.gethostname(),
        run=record.id,
        state=state,
        step=step,
        error=record.error or "",
        checks_passed=record.verdict.passed if record.verdict else 0,
        checks_total=record.verdict.total if record.verdict else 0,
        at=clock.now(),
    )
    try:
        bucket.put(provision.report_key(incident), told.model_dump_json(indent=2).encode())
    except RecoveryError as error:
        log.warning("How far it is could not be reported: %s", error)


def fetch_secrets(source: str, *, region: str, file: Path) -> None:
    """Put secrets out of AWS into a file that only its owner may read. Raises as the tool does."""
    filesystem.atomic_write(file, aws_secrets.fetch(source, region=region).encode(), mode=0o600)
