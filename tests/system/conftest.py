"""One staging platform for the tests that need a whole one."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.settings import Settings, load_settings
from lifeboat.tools.s3 import Bucket
from staging import processes
from staging.ports import choose_ports
from staging.s3 import S3Server
from staging.site import Site

STAGING_SCALE = 0.1


@pytest.fixture(scope="session")
def _staging_site_and_copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("staging") / "site"
    site, untouched = Site(root), root.parent / "untouched"
    site.create(scale=STAGING_SCALE)
    shutil.copytree(site.server, untouched, symlinks=True)
    yield site, untouched
    site.destroy()
    shutil.rmtree(untouched)


@pytest.fixture(scope="module")
def staging_site(_staging_site_and_copy) -> Site:
    """A running staging platform, as it was made, whatever an earlier module did to it.

    It is shared: mark the module with `pytest.mark.xdist_group("staging")`. S3 keeps what an
    earlier module put there; take a bucket or prefix of your own.
    """
    site, untouched = _staging_site_and_copy
    reset_server(site, untouched)
    site.start()
    yield site
    processes.kill_all(site.server)


@pytest.fixture
def reset_staging(_staging_site_and_copy):
    """Call it to set the server back to how it was made and start it again."""
    site, untouched = _staging_site_and_copy

    def reset(*, start: bool = True) -> None:
        reset_server(site, untouched)
        if start:
            site.start()

    return reset


def reset_server(site: Site, untouched: Path) -> None:
    processes.kill_all(site.server)
    processes.free_shared_memory(site.database_directory)
    shutil.rmtree(site.server, ignore_errors=True)
    shutil.copytree(untouched, site.server, symlinks=True)


# --- an S3 store without a platform -----------------------------------------------------------

S3_SECRETS = {"AWS_ACCESS_KEY_ID": "test-access", "AWS_SECRET_ACCESS_KEY": "test-secret"}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running SeaweedFS. Mark the module with `pytest.mark.xdist_group("s3")`."""
    directory = tmp_path_factory.mktemp("s3")
    # A bucket takes one volume instead of seven: many tests with one each would use up all.
    (directory / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    server = S3Server(directory, choose_ports(), *S3_SECRETS.values())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """A bucket of its own for each test."""
    name = f"vault-{secrets.token_hex(4)}"
    s3_server.create_bucket(name)
    access_key, secret_key = S3_SECRETS.values()
    return Bucket(
        endpoint=s3_server.endpoint,
        name=name,
        region="us-east-1",
        access_key=access_key,
        secret_key=secret_key,
        prefix="platform",
    )


@pytest.fixture
def bucket_settings(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A host whose vault is that bucket, and whose secrets are in the environment."""
    for name, value in {**S3_SECRETS, "LIFEBOAT_VAULT_PASSWORD": "test-password"}.items():
        monkeypatch.setenv(name, value)
    yaml = tmp_path / "lifeboat.yaml"
    yaml.write_text(host_yaml(bucket.endpoint or "", bucket.name))
    monkeypatch.setenv("LIFEBOAT_CONFIG", str(yaml))
    return load_settings(yaml)


def host_yaml(endpoint: str, bucket: str) -> str:
    """lifeboat.yaml of a host with files, models and nothing that runs."""
    return f"""\
platform: cad-test
environment: staging
stack: {{kind: process, supervisor_config: supervisord.conf, critical_services: [postgres]}}
database: {{service: postgres, name: cad, data_directory: data/postgres, bin_directory: /usr}}
files: {{directories: {{drawings: data/files}}}}
models: {{directories: {{models: data/models}}}}
config: {{paths: [lifeboat.yaml]}}
vault:
  local: backups
  s3:
    endpoint: "{endpoint}"
    bucket: {bucket}
    prefix: platform
    without:
      public-access-block: "SeaweedFS has none"
      tls-only: "loopback"
"""
