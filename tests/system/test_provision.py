"""A machine that is made for a lost server, as the operator sees it: plan, waiting, the end.

The bucket is a real store; EC2 is moto's. What the machine itself does is in test_guide.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from flows import provision_server as flow
from lifeboat.core import provision as core
from lifeboat.core.checks import CheckResult, Verdict
from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)
from lifeboat.core.forms import ProvisionServer, RecoverServer
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, RecoveryPoint
from lifeboat.core.provision import Machine, Report, State
from tasks import clock, places, provision, recovery
from tasks.record import Run
from tests.system.conftest import _BUCKET, Host

pytestmark = pytest.mark.system

# The procedure itself, whether or not Prefect is about.
provision_server = inspect.unwrap(getattr(flow.provision_server, "fn", flow.provision_server))
REGION = "eu-central-1"
SECTION = """\
provision:
  ec2:
    region: eu-central-1
    image: {image}
    instance_type: m5.large
    subnet: {subnet}
    instance_profile: lifeboat-recovery
    secrets: ssm:/lifeboat/cad
    disk_gigabytes: 50
    ssh_from: [192.0.2.0/24]
    lifeboat_repository: https://git.example.test/lifeboat.git
    wait_seconds: 0.5
"""


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.setattr(provision, "_POLL_SECONDS", 0.02)
    # The bucket's key stays the real one.
    with mock_aws(config={"core": {"mock_credentials": False}}):
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        boto3.client("iam", **keys).create_instance_profile(InstanceProfileName="lifeboat-recovery")
        yield boto3.client("ec2", region_name=REGION, **keys)


@pytest.fixture
def subnet(ec2: Any) -> str:
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    return ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]


@pytest.fixture
def section(ec2: Any, subnet: str) -> str:
    """`provision` of a lifeboat.yaml."""
    return SECTION.format(subnet=subnet, image=ec2.register_image(Name="an-image")["ImageId"])


@pytest.fixture
def lost(host: Host) -> ProvisionServer:
    """The request for a machine."""
    return ProvisionServer(
        bucket=_BUCKET,
        endpoint=host.endpoint,
        prefix=host.prefix,
        platform="cad-test",
        incident="fire",
        approval="preapproved",
    )


def alive(ec2: Any) -> list[str]:
    found = ec2.describe_instances()["Reservations"]
    return [
        instance["InstanceId"]
        for reservation in found
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "terminated"
    ]


def report(host: Host, state: State, *, late_seconds: float = 60, **told: Any) -> None:
    """What the new machine would say."""
    words: dict[str, Any] = {"step": "replay", **told}
    at = clock.now() + timedelta(seconds=late_seconds)
    said = Report(incident="fire", host="new", run="recover-server-1", state=state, at=at, **words)
    key = core.report_key("fire")
    places.bucket(host.settings).put(key, said.model_dump_json().encode())


def test_from_the_bucket_alone_one_machine_is_made_and_waited_for(
    lost: ProvisionServer, ec2: Any, section: str, host: Host
) -> None:
    host.run("backup", "config")
    with pytest.raises(PreconditionError, match="no section provision.ec2.*lifeboat card"):
        provision_server(lost)
    host.write_yaml(sections=section)
    host.run("backup", "config")
    with pytest.raises(PreconditionError, match="holds the platform 'cad-test', not 'other'"):
        provision_server(lost.model_copy(update={"platform": "other"}))
    plan = provision_server(lost.model_copy(update={"dry_run": True}))
    assert isinstance(plan, RecoveryPlan)
    told = plan.in_words()
    for words in ("lifeboat-cad-test-fire", "port 22 from 192.0.2.0/24", "no web", "m5.large"):
        assert words in told
    assert re.search(r"it runs: lifeboat recover server .*--approve cad-test --report fire", told)
    assert alive(ec2) == []
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == 2  # those that are there anyway

    report(host, State.DONE, checks_passed=18, checks_total=18)
    first, second = provision_server(lost), provision_server(lost)
    [machine] = alive(ec2)
    assert first.facts["instance"] == second.facts["instance"] == machine
    assert machine in first.facts["to_end_it"]


@pytest.fixture
def wanted(host: Host, lost: ProvisionServer, section: str) -> provision.Wanted:
    """What the bucket would say, without asking it."""
    host.write_yaml(sections=section)
    settings = host.settings
    assert settings.provision.ec2
    told = {"bucket": lost.bucket, "endpoint": lost.endpoint, "prefix": lost.prefix}
    return provision.Wanted(
        settings=settings,
        ec2=settings.provision.ec2,
        vault=core.Vault(platform="cad-test", region="us-east-1", into="/srv", **told),
        point=RecoveryPoint(
            asset=Asset.CONFIG, id="config-1", taken_at=clock.now(), copies={}, bytes=1
        ),
        incident="fire",
        profile="",
    )


def make_and_wait(wanted: provision.Wanted, request: ProvisionServer) -> None:
    provision.wait_until_recovered(wanted, provision.make_machine(wanted), request)


@pytest.mark.parametrize("on_failure", ["keep", "end"])
@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ({"state": State.FAILED, "error": "the disk is full"}, PermanentError, "disk is full"),
        (
            {"state": State.FAILED, "error": "17 of 18", "checks_passed": 17, "checks_total": 18},
            VerificationFailed,
            "17 of 18",
        ),
        ({"state": State.WORKING}, PermanentError, "not recovered within 0.5 s.*replay"),
        ({"state": State.DONE, "late_seconds": -3600}, PermanentError, "reported: nothing"),
    ],
)
def test_a_machine_that_did_not_recover_is_kept_or_ended_and_that_is_said(
    lost: ProvisionServer,
    wanted: provision.Wanted,
    ec2: Any,
    host: Host,
    said: dict,
    kind: type[RecoveryError],
    told: str,
    on_failure: str,
) -> None:
    report(host, **said)
    with pytest.raises(kind, match=f"(?s){told}") as caught:
        make_and_wait(wanted, lost.model_copy(update={"on_failure": on_failure}))
    assert type(caught.value) is kind
    words = str(caught.value)
    if on_failure == "keep":
        [machine] = alive(ec2)
        assert f"{machine} in {REGION}" in words
        assert f"aws ec2 --region {REGION} terminate-instances --instance-ids {machine}" in words
    else:
        assert alive(ec2) == []
        assert "ended, as --on-failure says" in words
    assert core.LOG in words


def test_a_machine_that_somebody_ended_is_not_waited_for(
    lost: ProvisionServer, wanted: provision.Wanted, ec2: Any
) -> None:
    machine = provision.make_machine(wanted)
    ec2.terminate_instances(InstanceIds=[machine.id])
    with pytest.raises(PermanentError, match=f"{machine.id}: it is terminated"):
        provision.wait_until_recovered(wanted, machine, lost)


# --- the machine's own side -------------------------------------------------------------------


def recovering(host: Host, tmp_path: Path) -> RecoverServer:
    return RecoverServer(
        bucket=_BUCKET,
        endpoint=host.endpoint,
        prefix=host.prefix,
        into=str(tmp_path / "new"),
        report="fire",
    )


def said(host: Host, since: Machine | None = None) -> Report | None:
    return provision.read_report(places.bucket(host.settings), "fire", since=since)


def test_a_recovery_says_how_far_it_is_and_how_it_ended(host: Host, tmp_path: Path) -> None:
    passed = [CheckResult(name="search", status="PASS", evidence="3", seconds=0)]
    request = recovering(host, tmp_path)
    assert said(host) is None
    with recovery.recovery_of_a_lost_server(request) as run:
        run.step_began("restore-code", None, 0.0)
        now = said(host)
        assert now is not None
        assert (now.state, now.step, now.run) == (State.WORKING, "restore code", run.id)
        run.verdict(Verdict.of(passed, expected=["search"]))
    ended = said(host)
    assert ended is not None
    assert (ended.state, ended.in_words()) == (State.DONE, "recovered: 1 of 1 checks passed")
    with (
        pytest.raises(PreconditionError),
        recovery.recovery_of_a_lost_server(request),
    ):
        raise PreconditionError("Looking at the disk: it is full.")
    failed = said(host)
    assert failed is not None
    assert (failed.state, failed.error) == (State.FAILED, "Looking at the disk: it is full.")


def test_a_report_that_can_not_be_written_stops_nothing(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = recovering(host, tmp_path).model_copy(update={"bucket": "no-such-bucket"})
    run = Run("recover-server", "cad-test", None)
    provision.report_to_bucket(away, run)
    run.step_began("restore-code", None, 0.0)
    assert "could not be reported" in caplog.text


def test_a_report_that_is_none_is_told(host: Host) -> None:
    places.bucket(host.settings).put(core.report_key("fire"), b"<html>")
    with pytest.raises(PermanentError, match="it is no report"):
        said(host)
