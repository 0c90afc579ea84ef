"""A host with some files and models and a vault of its own: for tests that need no platform."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lifeboat.core.points import Asset
from lifeboat.settings import Settings, load_settings
from staging.ports import choose_ports
from staging.s3 import S3Server
from tasks import backup, trees

BUCKET = "lifeboat-vault"
CANARY = "canary-" + secrets.token_hex(8)  # the vault's password
# Of a host with files, models and nothing that runs; each says itself where its vault is.
HOST_YAML = """\
platform: cad-test
environment: staging
stack: {kind: process, supervisor_config: supervisord.conf, critical_services: [postgres]}
database: {service: postgres, name: cad, data_directory: data/postgres, bin_directory: /usr}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
"""
VAULT_YAML = """\
vault:
  local: backups
  restic_program: {restic}
  s3: {{endpoint: "{endpoint}", bucket: {bucket}}}
"""


@contextmanager
def store(directory: Path) -> Iterator[S3Server]:
    """A store with the vault's bucket in it, for the hosts of one module."""
    server = S3Server(directory, choose_ports(), "test-access", "test-secret-key")
    server.start()
    try:
        server.create_bucket(BUCKET)
        yield server
    finally:
        server.stop()


def make(s3: S3Server, restic: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A host of its own with 40 drawings and 2 models, and a vault of its own in the bucket."""
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", CANARY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    chance = random.Random(7)
    for number in range(40):
        path = root / f"data/files/{number % 4}/drawing {number} [final]*.dxf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(20_000 + number))
    for name in ("default", "second"):
        path = root / f"data/models/{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(50_000))
    yaml = root / "lifeboat.yaml"
    text = HOST_YAML + VAULT_YAML.format(restic=restic, endpoint=s3.endpoint, bucket=BUCKET)
    prefix = f"test-{secrets.token_hex(4)}"  # all digits would be a number to YAML
    yaml.write_text(text.replace(f"bucket: {BUCKET}", f"bucket: {BUCKET}, prefix: {prefix}"))
    return load_settings(yaml)


def back_up(settings: Settings, asset: Asset) -> str:
    with backup.backup_run(settings, asset):
        facts = trees.gather_facts(settings, asset)
        trees.store_directories(settings, facts)
    return facts.point
