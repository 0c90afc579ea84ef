"""A new machine in Amazon EC2, over boto3: made once for an incident, found again, ended.

Sources: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html and boto3's
reference of the EC2 client.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError
from lifeboat.core.provision import (
    Ec2Settings,
    Machine,
    client_token,
    end_commands,
    group_name,
)

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_ALIVE = ("pending", "running", "stopping", "stopped")
_OF_INCIDENT = "lifeboat:incident"
_OF_PLATFORM = "lifeboat:platform"

log = logging.getLogger("lifeboat")

_USUAL_ROOT_DEVICE = "/dev/xvda"  # of Debian and Amazon Linux

_RIGHTS = ("UnauthorizedOperation", "AuthFailure", "AccessDenied", "AccessDeniedException")
_KEYS = ("InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "RequestExpired")
_PASSING = ("RequestLimitExceeded", "Throttling", "InternalError", "ServiceUnavailable")
_NO_ROOM = ("InsufficientInstanceCapacity", "VcpuLimitExceeded", "InstanceLimitExceeded")


class HostProvisioner(Protocol):
    """Where a new machine comes from. Everything may be asked for twice with the same result."""

    def find(self) -> Machine | None:
        """The incident's machine, if it was made already and has not been ended."""
        ...

    def make(self, user_data: str) -> Machine:
        """Make the machine, or give the one that is there.

        An error names what was left behind, and the command that ends it.
        """
        ...

    def state_of(self, machine: Machine) -> str:
        """What the provider says of it: `running` and so on."""
        ...

    def printed(self, machine: Machine) -> str:
        """The end of what its console shows; empty where that is not known."""
        ...

    def end(self, machine: Machine) -> None:
        """End it and all that was made for it."""
        ...


class Ec2Hosts:
    """HostProvisioner for EC2. `profile` names credentials in ~/.aws; empty: the environment's."""

    def __init__(
        self, settings: Ec2Settings, *, platform: str, incident: str, profile: str = ""
    ) -> None:
        self._told = settings
        self._platform = platform
        self._incident = incident
        self._profile = profile

    def find(self) -> Machine | None:
        filters = [
            {"Name": f"tag:{_OF_INCIDENT}", "Values": [self._incident]},
            {"Name": f"tag:{_OF_PLATFORM}", "Values": [self._platform]},
            {"Name": "instance-state-name", "Values": list(_ALIVE)},
        ]
        with self._asking("Looking for the machine of the incident"):
            answer = self._client.describe_instances(Filters=filters)
        found = [i for reservation in answer["Reservations"] for i in reservation["Instances"]]
        return self._machine(found[0], found=True) if found else None

    def make(self, user_data: str) -> Machine:
        found = self.find()
        if found:
            return found
        group = ""
        root_device = self._told.root_device or self._root_device()
        try:
            group = self._group()
            instance = self._run(group, user_data, root_device)
        except (RecoveryError, KeyboardInterrupt) as error:
            raise self._left_behind(error, group) from error
        machine = self._machine(instance)
        try:
            with self._asking(f"Waiting for {machine.id}"):
                self._client.get_waiter("instance_running").wait(
                    InstanceIds=[machine.id], WaiterConfig={"Delay": 3, "MaxAttempts": 100}
                )
                answer = self._client.describe_instances(InstanceIds=[machine.id])
        except (RecoveryError, KeyboardInterrupt) as error:
            raise self._left_behind(error, group, machine.id) from error
        return self._machine(answer["Reservations"][0]["Instances"][0])

    def state_of(self, machine: Machine) -> str:
        with self._asking(f"Looking at {machine.id}"):
            answer = self._client.describe_instances(InstanceIds=[machine.id])
        return answer["Reservations"][0]["Instances"][0]["State"]["Name"]

    def printed(self, machine: Machine) -> str:
        # Older types do not know `Latest`, without which newer ones give the first minutes alone.
        for latest in ({"Latest": True}, {}):
            with contextlib.suppress(RecoveryError), self._asking(f"Asking {machine.id}"):
                told = self._client.get_console_output(InstanceId=machine.id, **latest)
                return told.get("Output", "")
        return ""

    def end(self, machine: Machine) -> None:
        """End the instance, wait, and remove its group. What could not be ended is told."""
        try:
            with self._asking(f"Ending {machine.id}"):
                self._client.terminate_instances(InstanceIds=[machine.id])
                self._client.get_waiter("instance_terminated").wait(
                    InstanceIds=[machine.id], WaiterConfig={"Delay": 5, "MaxAttempts": 120}
                )
            with self._asking(f"Removing the security group {machine.group}"):
                self._client.delete_security_group(GroupId=machine.group)
        except RecoveryError as error:
            raise self._left_behind(error, machine.group, machine.id) from error

    # -- the parts

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        with self._asking("Reading the credentials"):
            session = boto3.Session(
                profile_name=self._profile or None, region_name=self._told.region
            )
            return session.client(
                "ec2",
                config=Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"mode": "standard", "max_attempts": 5},
                ),
            )

    @property
    def _tags(self) -> list[dict[str, str]]:
        ours = {
            "Name": group_name(self._platform, self._incident),
            _OF_PLATFORM: self._platform,
            _OF_INCIDENT: self._incident,
        }
        return [{"Key": k, "Value": v} for k, v in {**self._told.tags, **ours}.items()]

    def _group(self) -> str:
        """The incident's security group; EC2 takes no token for it, but its name can exist once."""
        name = group_name(self._platform, self._incident)
        with self._asking(f"Looking at {self._told.subnet}"):
            subnets = self._client.describe_subnets(SubnetIds=[self._told.subnet])
        network = subnets["Subnets"][0]["VpcId"]
        with self._asking(f"Making the security group {name}"):
            found = self._client.describe_security_groups(
                Filters=[
                    {"Name": "group-name", "Values": [name]},
                    {"Name": "vpc-id", "Values": [network]},
                ]
            )["SecurityGroups"]
            group = (
                found[0]["GroupId"]
                if found
                else self._client.create_security_group(
                    GroupName=name,
                    Description=f"Recovery of {self._platform}",
                    VpcId=network,
                    TagSpecifications=[{"ResourceType": "security-group", "Tags": self._tags}],
                )["GroupId"]
            )
        try:
            for port, networks in self._openings():
                self._open(group, port, networks)
        except (RecoveryError, KeyboardInterrupt) as error:
            raise self._left_behind(error, group) from error
        return group

    def _openings(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        if self._told.ssh_from:
            yield 22, self._told.ssh_from
        if self._told.web_from:
            yield from ((port, self._told.web_from) for port in self._told.web_ports)

    def _open(self, group: str, port: int, networks: tuple[str, ...]) -> None:
        for network in networks:  # one by one: a rule that is there does not hide another one
            six = ":" in network
            ranges = "Ipv6Ranges" if six else "IpRanges"
            permission = {
                "IpProtocol": "tcp",
                "FromPort": port,
                "ToPort": port,
                ranges: [{"CidrIpv6" if six else "CidrIp": network}],
            }
            with self._asking(f"Opening port {port} to {network}", but=("InvalidPermission.Dupl",)):
                self._client.authorize_security_group_ingress(
                    GroupId=group, IpPermissions=[permission]
                )

    def _root_device(self) -> str:
        """A disk under any other name would be one more beside the small one of the image."""
        image = self._told.image
        try:
            with self._asking(f"Looking at the image {image}"):
                found = self._client.describe_images(ImageIds=[image])["Images"]
        except PreconditionError as error:
            # A policy from before this was asked must not stop a recovery.
            log.warning("%s Its root device is taken to be %s.", error, _USUAL_ROOT_DEVICE)
            return _USUAL_ROOT_DEVICE
        name = found[0].get("RootDeviceName") if found else None
        if not name:
            raise PermanentError(
                f"Looking at the image {image}: EC2 in {self._told.region} "
                f"{'does not say what its root device is' if found else 'does not know it'}.",
                hint="Nothing was made. Look at `image` and `root_device` of provision.ec2 in "
                "lifeboat.yaml.",
            )
        return name

    def _run(self, group: str, user_data: str, root_device: str) -> dict[str, Any]:
        told = self._told
        with self._asking(f"Making an instance of {told.image}"):
            answer = self._client.run_instances(
                ClientToken=client_token(self._platform, self._incident),
                ImageId=told.image,
                InstanceType=told.instance_type,
                MinCount=1,
                MaxCount=1,
                **({"KeyName": told.key_name} if told.key_name else {}),
                SubnetId=told.subnet,
                SecurityGroupIds=[group],
                IamInstanceProfile={"Name": told.instance_profile},
                UserData=user_data,
                # Without a token of a session nothing on the machine can ask for its credentials.
                MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
                BlockDeviceMappings=[
                    {
                        "DeviceName": root_device,
                        "Ebs": {
                            "VolumeSize": told.disk_gigabytes,
                            "VolumeType": "gp3",
                            "Encrypted": True,
                            "DeleteOnTermination": True,
                        },
                    }
                ],
                TagSpecifications=[
                    {"ResourceType": kind, "Tags": self._tags} for kind in ("instance", "volume")
                ],
            )
        instance = answer["Instances"][0]
        if instance["State"]["Name"] not in _ALIVE:
            raise PreconditionError(
                f"Making an instance: the one of incident {self._incident} was ended already "
                f"({instance['InstanceId']}).",
                hint="Name another incident with --incident.",
            )
        return instance

    def _machine(self, told: dict[str, Any], *, found: bool = False) -> Machine:
        groups = told.get("SecurityGroups", ())
        return Machine(
            id=told["InstanceId"],
            region=self._told.region,
            group=groups[0]["GroupId"] if groups else "",
            address=told.get("PublicIpAddress") or told.get("PrivateIpAddress") or "",
            launched_at=told["LaunchTime"],
            found=found,
        )

    def _left_behind(self, error: BaseException, group: str, instance: str = "") -> BaseException:
        """The same error, with what is left; said once, by whoever knows most."""
        left = " and ".join(
            filter(None, (instance and f"instance {instance}", group and f"security group {group}"))
        )
        said = getattr(error, "message", "it was interrupted.")
        if not left or "Left behind" in said:
            return error
        kind = type(error) if isinstance(error, RecoveryError) else PermanentError
        again = "Run it again with the same --incident: what is there is used. Or end it: "
        return kind(
            f"{said} Left behind in {self._told.region}: {left}.",
            hint=f"{getattr(error, 'hint', '')} {again}"
            f"{end_commands(self._told.region, instance=instance, group=group)}".strip(),
        )

    @contextlib.contextmanager
    def _asking(self, doing: str, *, but: tuple[str, ...] = ()) -> Iterator[None]:
        """Turn boto3's errors into ours; a code that begins like one of `but` is none."""
        from botocore import exceptions

        where = f"EC2 in {self._told.region}"
        try:
            yield
        except exceptions.ClientError as error:
            told = error.response.get("Error", {})
            code, said = told.get("Code", "?"), told.get("Message", "")
            if any(code.startswith(known) for known in but):
                return
            raise _error_of(code, f"{doing}: {where} said {code}: {said}") from error
        except exceptions.WaiterError as error:
            raise PermanentError(
                f"{doing}: {error}.", hint="Look at it in the EC2 console."
            ) from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise TransientError(
                f"{doing}: {where} does not answer ({error}).", hint="Look at the network."
            ) from error
        except exceptions.BotoCoreError as error:
            raise PreconditionError(
                f"{doing}: {error}.", hint="Look at --aws-profile, or at AWS_ACCESS_KEY_ID."
            ) from error


def _error_of(code: str, message: str) -> RecoveryError:
    if code in _PASSING:
        return TransientError(message, hint="Try again in a moment.")
    if code in _RIGHTS:
        return PreconditionError(message, hint="Look at the rights of the AWS key: docs/ec2.md.")
    if code in _KEYS:
        return PreconditionError(message, hint="Look at --aws-profile, or at AWS_ACCESS_KEY_ID.")
    if code in _NO_ROOM:
        return PermanentError(message, hint="Choose another instance_type, subnet or region.")
    return PermanentError(message, hint="Look at `provision.ec2` in lifeboat.yaml.")
