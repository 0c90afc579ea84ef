"""SeaweedFS as the S3 store outside the server: a process of its own, which survives its loss."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from lifeboat.core.errors import PermanentError
from lifeboat.tools import process
from staging import processes
from staging.ports import Ports

START_SECONDS = 30.0
STOP_SECONDS = 5.0


class S3Server:
    """SeaweedFS' master, volume, filer and S3 gateway in one process, on 127.0.0.1 only."""

    def __init__(self, directory: Path, ports: Ports, access_key: str, secret_key: str) -> None:
        self.directory = directory
        self.endpoint = f"http://127.0.0.1:{ports.s3}"
        self._ports = ports
        self._access_key = access_key
        self._secret_key = secret_key
        self._process_file = directory / "process.json"

    @property
    def running(self) -> bool:
        return processes.remembered(self._process_file) is not None

    def start(self) -> None:
        """Start it and return once it answers and can store; nothing to do if it runs."""
        if self.running:
            return
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        identity = self.directory / "identity.json"
        identity.touch(mode=0o600)
        identity.write_text(json.dumps(self._identity()), encoding="utf-8")
        log_path = self.directory / "weed.log"
        daemon = process.start(
            self._command(data, identity),
            doing="Starting SeaweedFS",
            log_path=log_path,
            cwd=self.directory,
        )
        processes.remember(self._process_file, daemon.pid)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if not daemon.alive or time.monotonic() > deadline:
                tail = log_path.read_text(errors="replace")[-600:]
                self.stop()
                raise PermanentError(
                    f"Starting SeaweedFS: it does not answer. Its log ends: {tail}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        # It can hang on SIGTERM for as long as connections are open; what it acknowledged is in
        # its files either way.
        if running := processes.remembered(self._process_file):
            running.terminate()
            try:
                running.wait(STOP_SECONDS)
            except Exception:
                processes.kill([running])
        self._process_file.unlink(missing_ok=True)
        for socket in self._sockets():
            socket.unlink(missing_ok=True)

    def create_bucket(self, bucket: str) -> None:
        self._client().create_bucket(Bucket=bucket)

    def keep_versions(self, bucket: str) -> None:
        """Let a bucket keep for some time what is deleted or overwritten in it."""
        client = self._client()
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        rule = {
            "ID": "staging",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
        }
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
        )

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10}),
        )

    def _command(self, data: Path, identity: Path) -> list[str]:
        ports = self._ports
        options = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": ports.s3_master,
            "master.port.grpc": ports.s3_master_grpc,
            "master.electionTimeout": "1s",
            # Small volumes, and as many as the disk holds: a new one is preallocated nowhere.
            "master.volumeSizeLimitMB": 512,
            "master.telemetry": "false",
            "volume.port": ports.s3_volume,
            "volume.port.grpc": ports.s3_volume_grpc,
            "volume.max": 0,
            "volume.minFreeSpace": "100MiB",
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": ports.s3_filer,
            "filer.port.grpc": ports.s3_filer_grpc,
            "filer.localSocket": self._sockets()[0],
            "s3": "true",
            "s3.port": ports.s3,
            "s3.port.grpc": ports.s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": identity,
            "s3.iam": "false",
            # A bucket that is not there is an error that has to be seen.
            "s3.autoCreateBucket": "false",
        }
        options |= self._more_options()
        words = [f"-{name}={value}" for name, value in options.items()]
        return [_weed(), "-logtostderr", "server", *words]

    def _more_options(self) -> dict[str, object]:
        """What a store for some purpose of its own adds."""
        return {}

    def _identity(self) -> dict:
        key = {"accessKey": self._access_key, "secretKey": self._secret_key}
        return {
            "identities": [
                {
                    "name": "lifeboat",
                    "credentials": [key],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                }
            ]
        }

    def _ready(self) -> bool:
        try:
            refused = httpx.get(self.endpoint, timeout=2).status_code == 403
            assigned = httpx.get(f"http://127.0.0.1:{self._ports.s3_master}/dir/assign", timeout=5)
        except httpx.HTTPError:
            return False
        return refused and "fid" in assigned.text

    def _sockets(self) -> list[Path]:
        """SeaweedFS puts these into /tmp whatever TMPDIR says."""
        ports = self._ports
        names = [
            f"filer-{ports.s3_filer}",
            f"filer-grpc-{ports.s3_filer_grpc}",
            f"master-grpc-{ports.s3_master_grpc}",
            f"volume-grpc-{ports.s3_volume_grpc}",
            f"s3-{ports.s3}",
            f"s3-grpc-{ports.s3_grpc}",
        ]
        return [Path("/tmp") / f"seaweedfs-{name}.sock" for name in names]


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if not found:
        raise PermanentError(
            "Starting SeaweedFS: there is no `weed`.",
            hint="`make setup` installs it. In a container: the image lifeboat-staging.",
        )
    return found
