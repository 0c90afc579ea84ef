"""Prefect's server behind the nginx of deployments/nginx, with TLS of a CA of our own."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    temporary_settings,
)

from lifeboat.core.errors import TransientError
from lifeboat.settings.alarms import Alarms
from lifeboat.settings.model import Watch
from staging.orchestrator import Orchestrator
from staging.ports import choose_free
from tasks.prefect_server import deployment
from tests.system import prefect_ui
from tests.system.prefect_ui import Ui

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
SITE = ROOT / "deployments" / "nginx" / "lifeboat.conf"
PLATFORM = "behind-a-proxy"


@dataclass
class Proxy:
    url: str
    ca: Path
    another_ca: Path
    password: str

    @property
    def access(self) -> dict[str, str]:
        """What a worker or `lifeboat deploy` has in its environment."""
        return {
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_API_SSL_CERT_FILE": str(self.ca),
            "PREFECT_API_AUTH_STRING": self.password,
        }


def nginx() -> str:
    """Where it is. Without it the test is skipped, or fails if LIFEBOAT_REQUIRE_NGINX=1."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found:
        return found
    reason = "there is no nginx on PATH (Debian: apt-get install nginx-light)"
    if os.environ.get("LIFEBOAT_REQUIRE_NGINX") == "1":
        pytest.fail(f"LIFEBOAT_REQUIRE_NGINX=1, but {reason}")
    pytest.skip(reason)


def make_authority(file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file.stem)])
    made = (
        _certificate(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made, key


def make_certificate(
    file: Path, authority: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prefect.example.com")])
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        _certificate(name, authority.subject, own.public_key())
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    file.with_suffix(".key").write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: object) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def site(text: str, *, port: int, upstream: str, certificate: Path) -> str:
    """The file as it is shipped, with the lines changed that it says are to be changed."""
    changed = {
        "127.0.0.1:4200;": f"{upstream};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "prefect.example.com;": "localhost;",
        "/etc/nginx/tls/prefect.pem": str(certificate),
        "/etc/nginx/tls/prefect.key": str(certificate.with_suffix(".key")),
    }
    for old, new in changed.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def serving(program: str, directory: Path, text: str) -> Iterator[None]:
    (directory / "site.conf").write_text(text)
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (directory / "nginx.conf").write_text(
        "".join(
            (
                # Its children read a directory that belongs to whom runs the tests.
                "user root;\n" if os.getuid() == 0 else "",
                f"pid {directory}/nginx.pid;\nevents {{}}\nhttp {{\n",
                "access_log off;\n",
                *(f"{place}_temp_path {directory}/{place};\n" for place in places),
                f"include {directory}/site.conf;\n}}\n",
            )
        )
    )
    with (directory / "nginx.log").open("wb") as log:
        child = subprocess.Popen(
            [program, "-p", directory, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"],
            stderr=log,
        )
        try:
            yield
        finally:
            child.terminate()
            child.wait(30)


@pytest.fixture(scope="module")
def proxy(
    prefect_server: Orchestrator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    program = nginx()
    directory = tmp_path_factory.mktemp("proxy")
    authority, key = make_authority(directory / "ca.pem")
    make_authority(directory / "another.pem")
    make_certificate(directory / "prefect.pem", authority, key)
    [port] = choose_free(1)
    upstream = prefect_server.url.removeprefix("http://")
    certificate = directory / "prefect.pem"
    text = site(SITE.read_text(), port=port, upstream=upstream, certificate=certificate)
    with serving(program, directory, text):
        url = f"https://localhost:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"{url}/api/health", verify=str(directory / "ca.pem"))
                break
            except httpx.ConnectError:
                log = (directory / "nginx.log").read_text()
                assert time.monotonic() < deadline, f"nginx does not serve: {log}"
                time.sleep(0.1)
        yield Proxy(url, directory / "ca.pem", directory / "another.pem", prefect_server.password)


def apply(proxy: Proxy, **instead: str) -> deployment.Applied:
    """As `lifeboat deploy`, with this environment."""
    told = {**proxy.access, **instead}
    settings = {
        PREFECT_API_URL: told["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: told["PREFECT_API_AUTH_STRING"],
        PREFECT_API_SSL_CERT_FILE: told["PREFECT_API_SSL_CERT_FILE"],
    }
    read = {"file": Path("/srv/lifeboat.yaml"), "watch": Watch(), "alarms": Alarms(), "fill": str}
    with temporary_settings(settings):
        return deployment.apply(SimpleNamespace(platform=PLATFORM, **read))


def test_the_ui_answers_by_tls_and_the_api_asks_for_its_password(proxy: Proxy) -> None:
    with httpx.Client(base_url=proxy.url, verify=str(proxy.ca)) as browser:
        page = browser.get("/", follow_redirects=True)
        assert page.status_code == 200 and "<div id=" in page.text
        assert page.headers["X-Frame-Options"] == "DENY"
        assert "max-age" in page.headers["Strict-Transport-Security"]
        asked = {"url": "/api/deployments/filter", "json": {}}
        assert browser.post(**asked).status_code == 401
        user, _, password = proxy.password.partition(":")
        assert browser.post(**asked, auth=(user, password)).status_code == 200


def test_in_clear_it_does_not_answer(proxy: Proxy) -> None:
    answer = httpx.get(f"{proxy.url.replace('https', 'http')}/api/health")
    assert answer.status_code == 400 and "HTTPS port" in answer.text


def test_who_trusts_another_ca_or_none_of_ours_sends_nothing(proxy: Proxy) -> None:
    for trusted in (True, str(proxy.another_ca)):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{proxy.url}/api/health", verify=trusted)
    with pytest.raises(TransientError, match="does not answer"):
        apply(proxy, PREFECT_API_SSL_CERT_FILE=str(proxy.another_ca))


def test_deployed_and_run_through_it(proxy: Proxy, prefect_server: Orchestrator, tmp_path) -> None:
    """Its log and the worker's events come by websocket, so that both are seen to pass."""
    assert f"{PLATFORM}.recover-database" in apply(proxy).deployed
    ui = Ui(prefect_server)
    pool = "proxied"
    ui.post("/work_pools/", name=pool, type="process")
    made = ui.post(
        "/deployments/",
        name=pool,
        flow_id=ui.post("/flows/", name="linger")["id"],
        entrypoint="tests.system.lingering.linger",
        work_pool_name=pool,
        work_queue_name=PLATFORM,
        job_variables={"stream_output": False, "env": {"TOLD_BY_THE_POOL": pool}},
    )
    body = {"parameters": {"directory": str(tmp_path)}, "state": {"type": "SCHEDULED"}}
    run = ui.post(f"/deployments/{made['id']}/create_flow_run", **body)["id"]
    words = ["--pool", pool, "--work-queue", PLATFORM, "--name", pool, "--poll-seconds", "0.5"]
    more = {"PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "worker.log").open("wb") as log:
        child = subprocess.Popen(
            [Path(sys.executable).with_name("lifeboat"), "work", *words],
            env={**os.environ, **proxy.access, **more},
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            ui.until_it_ends_as(run, "Completed")
            deadline = time.monotonic() + prefect_ui.PATIENCE_SECONDS
            while not ("lingering" in ui.log(run) and events(ui, run)):
                assert time.monotonic() < deadline, (ui.log(run), events(ui, run))
                time.sleep(0.3)
        finally:
            child.kill()
            child.wait()


def events(ui: Ui, run: str) -> list[str]:
    """What a worker told of the run."""
    about = {"id": [f"prefect.flow-run.{run}"]}
    wanted = {"event": {"prefix": ["prefect.worker."]}, "related": about}
    return [event["event"] for event in ui.post("/events/filter", filter=wanted)["events"]]
