"""A machine in EC2 for a lost server: made once, found again, and never left without a word."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from moto import mock_aws
from pydantic import ValidationError
from ruamel.yaml import YAML

from lifeboat.core import provision
from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientError,
)
from lifeboat.core.provision import Ec2Settings, ProvisionSettings, Vault
from lifeboat.tools import aws_secrets
from lifeboat.tools.ec2 import Ec2Hosts

REGION = "eu-central-1"
ROOT = Path(__file__).parents[2]
VAULT = Vault(
    platform="museum",
    bucket="museum-vault",
    endpoint="https://s3.example.test",
    region="us-east-1",
    into="/srv/the museum",
)
STEPS = {
    "DescribeInstances": (False, False),
    "DescribeImages": (False, False),
    "DescribeSubnets": (False, False),
    "CreateSecurityGroup": (False, False),
    "AuthorizeSecurityGroupIngress": (True, False),
    "RunInstances": (True, False),
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # seconds, for each test
    with mock_aws():
        boto3.client("iam").create_instance_profile(InstanceProfileName="lifeboat-recovery")
        yield boto3.client("ec2", region_name=REGION)


@pytest.fixture
def settings(aws: Any) -> Ec2Settings:
    return settings_for(aws)


def settings_for(aws: Any, **changes: object) -> Ec2Settings:
    network = aws.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    told: dict[str, object] = {
        "region": REGION,
        "image": aws.register_image(Name="an-image", RootDeviceName="/dev/sda1")["ImageId"],
        "instance_type": "m5.xlarge",
        "subnet": subnet,
        "instance_profile": "lifeboat-recovery",
        "secrets": "ssm:/lifeboat/museum",
        "disk_gigabytes": 100,
        "ssh_from": ["192.0.2.0/24"],
        "web_from": ["0.0.0.0/0", "::/0"],
        "tags": {"team": "archive"},
        "lifeboat_repository": "https://git.example.test/lifeboat.git",
        "lifeboat_revision": "v1.2",
    }
    return Ec2Settings(**{**told, **changes})


def hosts(settings: Ec2Settings, incident: str = "lost-1") -> Ec2Hosts:
    return Ec2Hosts(settings, platform="museum", incident=incident)


def instances(aws: Any, *states: str) -> list[dict]:
    found = aws.describe_instances()["Reservations"]
    listed = [i for reservation in found for i in reservation["Instances"]]
    return [i for i in listed if not states or i["State"]["Name"] in states]


def groups(aws: Any) -> list[dict]:
    return [
        group
        for group in aws.describe_security_groups()["SecurityGroups"]
        if group["GroupName"].startswith("lifeboat-")
    ]


def fail_at(made: Ec2Hosts, call: str, error: BaseException) -> None:
    """Let EC2 answer so to the next call of that name."""

    def fail(**_: object) -> None:
        made._client.meta.events.unregister(f"before-call.ec2.{call}", fail)
        raise error

    made._client.meta.events.register(f"before-call.ec2.{call}", fail)


def refusal(code: str, call: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "because"}}, call)


def test_one_incident_has_one_machine(aws: Any, settings: Ec2Settings) -> None:
    text = provision.user_data(settings, VAULT, incident="lost-1")
    first = hosts(settings).make(text)
    second = hosts(settings).make(text)
    assert (first.id, first.found, second.id, second.found) == (first.id, False, first.id, True)
    assert first.address
    [instance] = instances(aws)
    [group] = groups(aws)
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert {t["Key"]: t["Value"] for t in instance["Tags"]} == {
        "team": "archive",
        "Name": "lifeboat-museum-lost-1",
        "lifeboat:platform": "museum",
        "lifeboat:incident": "lost-1",
    }
    opened = {
        (rule["FromPort"], source)
        for rule in group["IpPermissions"]
        for source in (
            *(r["CidrIp"] for r in rule["IpRanges"]),
            *(r["CidrIpv6"] for r in rule["Ipv6Ranges"]),
        )
    }
    web = {(port, net) for port in (80, 443) for net in ("0.0.0.0/0", "::/0")}
    assert opened == web | {(22, "192.0.2.0/24")}
    other = hosts(settings, "lost-2").make(text)
    assert other.id != first.id


def test_its_one_disk_has_the_name_that_the_image_gives_it(aws: Any, settings: Ec2Settings) -> None:
    hosts(settings).make("#cloud-config\n{}")
    [instance] = instances(aws)
    [disk] = instance["BlockDeviceMappings"]
    [volume] = aws.describe_volumes()["Volumes"]
    assert (disk["DeviceName"], instance["RootDeviceName"]) == ("/dev/sda1", "/dev/sda1")
    assert (volume["Size"], volume["Encrypted"]) == (100, True)


def test_an_image_whose_root_device_is_told_is_not_asked_for(aws: Any) -> None:
    made = hosts(settings_for(aws, root_device="/dev/xvda"))
    fail_at(made, "DescribeImages", refusal("UnauthorizedOperation", "DescribeImages"))
    made.make("#cloud-config\n{}")
    [instance] = instances(aws)
    assert [disk["DeviceName"] for disk in instance["BlockDeviceMappings"]] == ["/dev/xvda"]


def test_a_key_that_may_not_look_at_images_makes_a_machine_all_the_same(aws: Any, caplog) -> None:
    """As one does whose policy is from before that was asked."""
    made = hosts(settings_for(aws))
    fail_at(made, "DescribeImages", refusal("UnauthorizedOperation", "DescribeImages"))
    made.make("#cloud-config\n{}")
    [instance] = instances(aws)
    assert [disk["DeviceName"] for disk in instance["BlockDeviceMappings"]] == ["/dev/xvda"]
    assert "Its root device is taken to be /dev/xvda" in caplog.text


def test_with_an_image_that_is_not_there_nothing_is_made(aws: Any) -> None:
    made = hosts(settings_for(aws, image="ami-0123456789abcdef0"))
    with pytest.raises(PermanentError, match="Looking at the image ami-0123456789abcdef0"):
        made.make("#cloud-config\n{}")
    assert (groups(aws), instances(aws)) == ([], [])


@pytest.mark.parametrize("call", STEPS)
def test_what_a_step_left_behind_is_said_and_used_by_the_next_try(
    aws: Any, settings: Ec2Settings, call: str
) -> None:
    made = hosts(settings)
    fail_at(made, call, refusal("InternalError", call))
    with pytest.raises(TransientError, match="because") as caught:
        made.make("#cloud-config\n{}")
    group, instance = STEPS[call]
    assert (len(groups(aws)), len(instances(aws))) == (group, instance)
    told = str(caught.value)
    assert ("Left behind" in told) == group
    if group:
        [there] = groups(aws)
        assert f"delete-security-group --group-id {there['GroupId']}" in told
        assert REGION in told
    machine = made.make("#cloud-config\n{}")
    assert (len(groups(aws)), len(instances(aws))) == (1, 1)
    assert machine.group == groups(aws)[0]["GroupId"]


def test_an_instance_that_was_made_is_said_even_if_nobody_could_wait_for_it(
    aws: Any, settings: Ec2Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hosts(settings)
    run = made._run

    def then_the_network_goes(*words: Any) -> dict:
        instance = run(*words)
        fail_at(made, "DescribeInstances", ConnectTimeoutError(endpoint_url="ec2"))
        return instance

    monkeypatch.setattr(made, "_run", then_the_network_goes)
    with pytest.raises(TransientError, match="does not answer") as caught:
        made.make("#cloud-config\n{}")
    [instance] = instances(aws)
    assert f"terminate-instances --instance-ids {instance['InstanceId']}" in str(caught.value)


def test_ended_means_that_nothing_is_left(aws: Any, settings: Ec2Settings) -> None:
    made = hosts(settings)
    machine = made.make("#cloud-config\n{}")
    made.end(machine)
    assert (groups(aws), instances(aws, "pending", "running", "stopped")) == ([], [])
    assert made.find() is None
    assert made.state_of(machine) == "terminated"


def test_one_that_could_not_be_ended_is_said(aws: Any, settings: Ec2Settings) -> None:
    made = hosts(settings)
    machine = made.make("#cloud-config\n{}")
    fail_at(made, "TerminateInstances", refusal("UnauthorizedOperation", "TerminateInstances"))
    with pytest.raises(PreconditionError, match=f"(?s)Left behind.*{machine.id}"):
        made.end(machine)


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        ("UnauthorizedOperation", PreconditionError, "docs/ec2.md"),
        ("ExpiredToken", PreconditionError, "aws-profile"),
        ("RequestLimitExceeded", TransientError, "again"),
        ("InsufficientInstanceCapacity", PermanentError, "instance_type"),
        ("InvalidAMIID.NotFound", PermanentError, "provision.ec2"),
    ],
)
def test_what_ec2_says_is_told_with_what_to_do(
    aws: Any, settings: Ec2Settings, code: str, kind: type[RecoveryError], hint: str
) -> None:
    made = hosts(settings)
    fail_at(made, "RunInstances", refusal(code, "RunInstances"))
    with pytest.raises(kind, match=f"(?s)Making an instance.*{code}.*{hint}"):
        made.make("#cloud-config\n{}")


def test_a_profile_that_is_not_there(aws: Any, settings: Ec2Settings) -> None:
    made = Ec2Hosts(settings, platform="museum", incident="x", profile="nobodys")
    with pytest.raises(PreconditionError, match="nobodys.*--aws-profile"):
        made.find()


# --- the user data ----------------------------------------------------------------------------


def script_of(text: str) -> str:
    assert text.startswith("#cloud-config\n")
    told = YAML(typ="safe").load(text)
    [file] = told["write_files"]
    assert told["runcmd"] == [[file["path"]]]
    assert file["permissions"] == "0700"
    return file["content"]


def test_the_user_data_is_cloud_config_with_a_script_that_bash_can_read(
    settings: Ec2Settings, tmp_path: Path
) -> None:
    text = provision.user_data(settings, VAULT, incident="lost-1")
    script = script_of(text)
    (tmp_path / "script").write_text(script)
    done = subprocess.run(["bash", "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.rstrip().endswith(
        "lifeboat recover server --bucket museum-vault --endpoint https://s3.example.test "
        "--region us-east-1 --into '/srv/the museum' --approve museum --report lost-1"
    )
    assert "PASSWORD" not in text
    assert "SECRET" not in text


def run_script(settings: Ec2Settings, place: Path, **programs: int) -> tuple[int, str]:
    """Run it with programs that end with these exit codes; give its own, and what is printed.

    Those that are not named do not exist.
    """
    script = script_of(provision.user_data(settings, VAULT, incident="lost-1"))
    there = {
        provision.LOG: place / "log",
        "/dev/console": place / "console",
        provision.HOME: place / "lifeboat",
    }
    for name, path in there.items():
        script = script.replace(name, str(path))
    (place / "lifeboat").mkdir()
    (place / "bin").mkdir()
    for name in ("tee", "date"):
        (place / "bin" / name).symlink_to(str(shutil.which(name)))
    for name, code in programs.items():
        program = place / "bin" / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
    done = subprocess.run(
        [str(shutil.which("bash")), "-c", script],
        env={"PATH": str(place / "bin")},
        capture_output=True,
        text=True,
    )
    return done.returncode, (place / "console").read_text()


@pytest.mark.parametrize(
    ("programs", "code", "failed"),
    [
        ({"apt_get": 100}, 100, "installing packages, exit code 100"),
        ({}, 127, "installing packages, exit code 127"),
        (
            {"apt_get": 0, "systemctl": 0, "git": 128},
            128,
            "fetching Lifeboat from its repository, exit code 128",
        ),
        (
            {"apt_get": 0, "systemctl": 0, "git": 0, "make": 2},
            2,
            "installing Lifeboat, exit code 2",
        ),
        (
            {**dict.fromkeys(("apt_get", "systemctl", "git", "make", "docker"), 0), "lifeboat": 3},
            3,
            "fetching the secrets, exit code 3",
        ),
    ],
)
def test_a_script_that_ends_early_says_on_the_console_at_what(
    settings: Ec2Settings, tmp_path: Path, programs: dict[str, int], code: int, failed: str
) -> None:
    ended, printed = run_script(settings, tmp_path, **programs)
    mark = provision.last_mark(printed)
    assert mark and (ended, mark.failed) == (code, failed)


def test_a_script_that_ends_well_says_only_that_it_began(
    settings: Ec2Settings, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text("LIFEBOAT_VAULT_PASSWORD=x\n")
    settings = settings.model_copy(update={"secrets_file": str(secrets)})
    names = ("apt_get", "systemctl", "git", "make", "docker", "lifeboat")
    ended, printed = run_script(settings, tmp_path, **dict.fromkeys(names, 0))
    assert (ended, printed.count("\n")) == (0, 1)
    mark = provision.last_mark(printed)
    assert mark and mark.failed == ""


def test_a_console_is_asked_for_its_newest_lines_and_else_for_what_there_is(
    aws: Any, settings: Ec2Settings
) -> None:
    made = hosts(settings)
    machine = made.make("#cloud-config\n{}")
    asked: list[str] = []

    def remember(params: dict, **_: object) -> None:
        asked.append(params["body"].get("Latest", "no"))

    made._client.meta.events.register("before-call.ec2.GetConsoleOutput", remember)
    assert made.printed(machine)
    fail_at(made, "GetConsoleOutput", refusal("UnsupportedOperation", "GetConsoleOutput"))
    assert made.printed(machine)
    assert asked == ["true", "true", "no"]


def test_every_program_and_file_that_the_script_uses_is_there(settings: Ec2Settings) -> None:
    script = script_of(provision.user_data(settings, VAULT, incident="lost-1"))
    assert "make setup" in script
    assert (ROOT / "Makefile").exists()
    assert "scripts/fetch_compose.py" in script
    assert (ROOT / "scripts/fetch_compose.py").exists()


def test_user_data_that_ec2_would_not_take_is_refused(settings: Ec2Settings) -> None:
    long = VAULT.model_copy(update={"into": "/srv/" + "x" * 17000})
    with pytest.raises(ValueError, match="16384"):
        provision.user_data(settings, long, incident="lost-1")


@pytest.mark.parametrize(
    "change",
    [
        {"ssh_from": ["anywhere"]},
        {"secrets": "the password itself"},
        {"image": "debian-12"},
        {"region": "Frankfurt"},
        {"disk_gigabytes": 1},
    ],
)
def test_settings_that_can_not_be_right_are_refused(aws: Any, change: dict) -> None:
    with pytest.raises(ValidationError):
        settings_for(aws, **change)


# --- secrets ----------------------------------------------------------------------------------


def test_secrets_come_from_either_store(aws: Any) -> None:
    lines = "LIFEBOAT_VAULT_PASSWORD=x\nAWS_ACCESS_KEY_ID=y\n"
    ssm = boto3.client("ssm", region_name=REGION)
    ssm.put_parameter(Name="/lifeboat/museum", Value=lines, Type="SecureString")
    manager = boto3.client("secretsmanager", region_name=REGION)
    manager.create_secret(Name="lifeboat/museum", SecretString=lines)
    assert aws_secrets.fetch("ssm:/lifeboat/museum", region=REGION) == lines
    assert aws_secrets.fetch("secretsmanager:lifeboat/museum", region=REGION) == lines


@pytest.mark.parametrize("source", ["ssm:/nothing", "secretsmanager:nothing", "file:/etc/passwd"])
def test_secrets_that_are_not_there(aws: Any, source: str) -> None:
    with pytest.raises(PreconditionError, match=source):
        aws_secrets.fetch(source, region=REGION)


def test_the_section_in_the_docs_is_a_good_one() -> None:
    page = (ROOT / "docs/ec2.md").read_text()
    start = page.index("```yaml\n") + len("```yaml\n")
    told = YAML(typ="safe").load(page[start : page.index("```", start)])
    assert ProvisionSettings(**told["provision"]).ec2


def test_the_rights_in_the_docs_are_those_that_are_used() -> None:
    page = (ROOT / "docs/ec2.md").read_text()
    start = page.index("```json operator\n") + len("```json operator\n")
    policy = json.loads(page[start : page.index("```", start)])
    allowed = {action for s in policy["Statement"] for action in s["Action"]}
    assert {f"ec2:{call}" for call in (*STEPS, "TerminateInstances", "DeleteSecurityGroup")} <= (
        allowed
    )
