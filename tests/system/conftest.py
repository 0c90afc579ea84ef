"""One staging platform for the tests that need a whole one; a bare host for those of the vault."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lifeboat.settings import Settings, find_compose, find_restic, load_settings
from lifeboat.tools.s3 import Bucket
from staging import processes
from staging.orchestrator import Orchestrator
from staging.ports import choose_ports
from staging.s3 import S3Server
from staging.site import Site
from tasks import places, vault
from tests.system import quick_keys, settings_file
from tests.system.image import Image
from tests.system.vault_site import HOST_YAML

STAGING_SCALE = 0.1


@pytest.fixture(scope="session")
def lifeboat() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call it with lifeboat.yaml and the words of a command; variables as keywords."""

    def run(config: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
            env={**os.environ, **environment, "LIFEBOAT_CONFIG": str(config)},
            capture_output=True,
            text=True,
            timeout=180,
        )

    return run


@pytest.fixture(scope="session")
def quick_restic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """restic, but for the half second of CPU that each of its calls takes to try the password."""
    program = tmp_path_factory.mktemp("restic") / "restic"
    quick_keys.write_restic(program, find_restic())
    return program


@pytest.fixture(scope="session")
def _staging_site_and_copy(tmp_path_factory, quick_restic: Path):
    root = tmp_path_factory.mktemp("staging") / "site"
    site, untouched = Site(root), root.parent / "untouched"
    site.create(scale=STAGING_SCALE)
    settings_file.change(site.settings_path, {"vault.restic_program": str(quick_restic)})
    shutil.copytree(site.server, untouched, symlinks=True)
    yield site, untouched
    site.destroy()
    shutil.rmtree(untouched)


@pytest.fixture(scope="module")
def staging_site(_staging_site_and_copy) -> Site:
    """A running staging platform, as it was made, whatever an earlier module did to it.

    Each worker of a test run has one, which its modules share one after the other. S3 keeps what an
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


# --- Prefect -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    """A running Prefect server on a PostgreSQL of its own. To start it takes 10 to 20 s."""
    directory = tmp_path_factory.mktemp("prefect") / "orchestrator"
    soon = {
        # A worker that asks no more is noticed after so many seconds, and not after 75.
        "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "3",
        "PREFECT_SERVER_SERVICES_FOREMAN_WORK_QUEUE_LAST_POLLED_TIMEOUT_SECONDS": "10",
    }
    made = Orchestrator(directory, platform="cad-ai-staging", environment=soon)
    made.create()
    try:
        made.start_server()
        yield made
    finally:
        made.destroy()


# --- an S3 store without a platform -----------------------------------------------------------

S3_SECRETS = {"AWS_ACCESS_KEY_ID": "test-access", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running SeaweedFS."""
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
def bucket_settings(
    bucket: Bucket, quick_restic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A host whose vault is that bucket, and whose secrets are in the environment."""
    for name, value in {**S3_SECRETS, "LIFEBOAT_VAULT_PASSWORD": "test-password"}.items():
        monkeypatch.setenv(name, value)
    yaml = tmp_path / "lifeboat.yaml"
    yaml.write_text(host_yaml(bucket.endpoint or "", bucket.name))
    settings_file.change(yaml, {"vault.restic_program": str(quick_restic)})
    monkeypatch.setenv("LIFEBOAT_CONFIG", str(yaml))
    return load_settings(yaml)


def host_yaml(endpoint: str, bucket: str) -> str:
    """lifeboat.yaml of a host with files, models and nothing that runs."""
    return f"""\
{HOST_YAML}vault:
  local: backups
  s3:
    endpoint: "{endpoint}"
    bucket: {bucket}
    prefix: platform
    without:
      public-access-block: "SeaweedFS has none"
      tls-only: "loopback"
"""


# --- a host with configuration, models and a vault, and no platform on it ---------------------

_BUCKET = "lifeboat-hosts"
_HOST_YAML = """\
platform: cad-test
environment: staging
secrets_file: .env.production
stack: {{kind: process, supervisor_config: supervisord.conf, critical_services: [postgres]}}
database: {{service: postgres, name: cad, data_directory: data/postgres, bin_directory: /usr}}
files: {{directories: {{drawings: data/files}}}}
models: {{directories: {{models: data/models}}}}
config:
  paths: [lifeboat.yaml, .env.production, config]
{more}
vault:
  local: backups
  restic_program: {restic}
  s3: {{endpoint: "{endpoint}", bucket: {bucket}, prefix: {prefix}}}
{sections}"""


@dataclass
class Host:
    """A directory with lifeboat.yaml, data and a vault of its own in a shared bucket."""

    root: Path
    endpoint: str
    prefix: str
    restic: Path
    canary: str  # a secret, in `secrets_file` as CAD_PASSWORD

    @property
    def settings(self) -> Settings:
        return load_settings(self.root / "lifeboat.yaml")

    def write_yaml(
        self, more: str = "", *, endpoint: str | None = None, sections: str = ""
    ) -> None:
        """`more` is put into the section `config`, and `sections` behind all."""
        text = _HOST_YAML.format(
            restic=self.restic,
            endpoint=endpoint or self.endpoint,
            bucket=_BUCKET,
            prefix=self.prefix,
            more=more,
            sections=sections,
        )
        (self.root / "lifeboat.yaml").write_text(text)

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
            env={**os.environ, "LIFEBOAT_CONFIG": str(self.root / "lifeboat.yaml"), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, ok: int = 0, **environment: str) -> subprocess.CompletedProcess:
        child = self.start(*words, **environment)
        out, error = child.communicate(timeout=120)
        assert child.returncode == ok, f"{words}: exit {child.returncode}\n{error}\n{out}"
        assert self.canary not in out + error
        return subprocess.CompletedProcess(words, child.returncode, out, error)

    def records(self) -> list[str]:
        return sorted(path.name for path in (self.root / "backups/records/runs").iterdir())


@pytest.fixture(scope="session")
def _hosts_s3(s3_server: S3Server) -> S3Server:
    s3_server.create_bucket(_BUCKET)
    return s3_server


@pytest.fixture(scope="session")
def _first_host(
    _hosts_s3: S3Server, quick_restic: Path, tmp_path_factory: pytest.TempPathFactory
) -> Host:
    """A host with an empty vault. To make one costs 10 s of CPU, to copy it a moment."""
    root = tmp_path_factory.mktemp("host") / "srv"
    for name in ("config/nginx", "data/files", "data/models", "data/postgres"):
        (root / name).mkdir(parents=True)
    canary = "canary-" + secrets.token_hex(8)
    prefix = f"host-{secrets.token_hex(4)}"
    found = Host(root, _hosts_s3.endpoint, prefix, quick_restic, canary)
    found.write_yaml()
    (root / ".env.production").touch(mode=0o600)
    (root / ".env.production").write_text(f"CAD_PASSWORD={canary}\nCAD_DIRECTORY=data/files\n")
    (root / "config/nginx/nginx.prod.conf").write_text("listen 80;\n")
    (root / "data/files/a.dxf").write_bytes(secrets.token_bytes(1000))
    (root / "data/models/default.bin").write_bytes(secrets.token_bytes(50_000))
    with pytest.MonkeyPatch.context() as patch:
        _give_secrets(patch, canary)
        vault.prepare_vault(found.settings)
    return found


def _give_secrets(patch: pytest.MonkeyPatch, canary: str) -> None:
    for name, value in {**S3_SECRETS, "LIFEBOAT_VAULT_PASSWORD": "vault-" + canary}.items():
        patch.setenv(name, value)


@pytest.fixture
def host(_first_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return copy_host(_first_host, tmp_path, monkeypatch)


def copy_host(first: Host, directory: Path, patch: pytest.MonkeyPatch) -> Host:
    """One more host, below a directory; its secrets are in the environment."""
    _give_secrets(patch, first.canary)
    prefix = f"host-{secrets.token_hex(4)}"
    found = replace(first, root=directory / "srv", prefix=prefix)
    shutil.copytree(first.root, found.root, symlinks=True)
    found.write_yaml()
    source, target = places.bucket(first.settings), places.bucket(found.settings)
    for item in source.list():
        target.put(item.key, source.get(item.key))
    return found


# --- Lifeboat's own image ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def image(docker_host: str) -> Iterator[Image]:
    """Lifeboat's image under a name of its own, built once; LIFEBOAT_IMAGE names it."""
    compose = find_compose()
    words = (str(compose),) if compose else ("docker", "compose")
    image = Image(f"lifeboat-test-{secrets.token_hex(4)}", words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIFEBOAT_IMAGE", image.name)
        image.build()
        try:
            yield image
        finally:
            image.docker("image", "rm", "--force", image.name)
