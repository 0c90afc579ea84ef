"""The trial of `bench.two_servers` on the Compose file of deployments/many-hosts as it stands.

Run it as `python -m bench.two_servers_in_containers`, with the image `lifeboat-server` built and
those at hand that the file names. The worker is this machine's; it and the trial reach the servers
through the proxy alone, by TLS.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.two_servers import MANY_HOSTS, ROOT, Site, trial
from staging.making import write
from staging.ports import choose_free

_PROJECT = "lifeboat-two-servers"
_START_SECONDS = 600


class Containers(Site):
    """The project of the Compose file; processes of this machine: the worker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (self.proxy,) = choose_free(1)
        self.processes: dict[str, subprocess.Popen] = {}
        self._password = f"lifeboat:{secrets.token_hex(16)}"
        self._compose = subprocess.check_output(
            ["python3", "-B", ROOT / "scripts/fetch_compose.py"], text=True
        ).split()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.proxy}/api"

    def environment(self) -> Mapping[str, str]:
        """Of the worker, which knows the proxy and no more."""
        return {
            **os.environ,
            "PREFECT_HOME": str(self.directory / "worker"),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": self._password,
            "PREFECT_API_SSL_CERT_FILE": str(self.directory / "prefect.pem"),
        }

    def begin(self) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "prefect.key")
        subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", *key, *subject, "-out", "prefect.pem"],
            cwd=self.directory,
            check=True,
            capture_output=True,
        )
        told = {
            "LIFEBOAT_URL": f"https://127.0.0.1:{self.proxy}",
            "LIFEBOAT_TLS_PORT": f"127.0.0.1:{self.proxy}",
            "LIFEBOAT_TLS_DIRECTORY": str(self.directory),
            "PREFECT_API_AUTH_STRING": self._password,
            "PREFECT_DATABASE_PASSWORD": secrets.token_hex(16),
            "PREFECT_REDIS_PASSWORD": secrets.token_hex(16),
            "PREFECT_SERVER_ENCRYPTION_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        }
        write(self.directory / ".env", "".join(f"{k}={v}\n" for k, v in told.items()))
        self._docker("up", "--detach", "--wait")

    def answers(self, name: str) -> bool:
        told = self._docker("ps", "--all", "--format", "json", name)
        return any(json.loads(line)["Health"] == "healthy" for line in told.splitlines())

    def start_server(self, name: str) -> None:
        self._docker("start", name)

    def start_services(self) -> None:
        self._docker("start", "services")

    def kill(self, name: str) -> None:
        if name in self.processes:
            super().kill(name)
        else:
            self._docker("kill", "--signal", "SIGKILL", name)

    def end(self) -> None:
        for name in tuple(self.processes):
            self.kill(name)
        self._docker("down", "--volumes", "--timeout", "5")

    def _docker(self, *words: str) -> str:
        file = MANY_HOSTS / "docker-compose.yml"
        known = ["--file", file, "--env-file", self.directory / ".env"]
        done = subprocess.run(
            [*self._compose, "--project-name", _PROJECT, *known, *words],
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"docker compose {words[0]}: {done.stderr[-2000:]}")
        return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lifeboat-two-") as directory:
        site = Containers(Path(directory))
        try:
            site.begin()
            trial(site)
        finally:
            site.end()


if __name__ == "__main__":
    main()
