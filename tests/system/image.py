"""Lifeboat's own image as tests use it: under a name of its own, and run as a reader would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BUILD_SECONDS = 800
# Whom Debian trusts, where pip is not told otherwise.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_TRUSTED = {"PIP_CERT": str(_CERTIFICATES)} if _CERTIFICATES.exists() else {}


@dataclass(frozen=True)
class Image:
    """An image on the engine of DOCKER_HOST, and Compose v2 by the words that call it."""

    name: str
    compose_words: tuple[str, ...]

    @property
    def socket(self) -> str:
        return os.environ["DOCKER_HOST"].removeprefix("unix://")

    def build(self, service: str = "lifeboat") -> None:
        # A cold build takes minutes; what an earlier one left is used again.
        self.compose("--file", "docker-compose.build.yml", "build", "--quiet", service)

    def compose(self, *words: str, timeout: float = _BUILD_SECONDS, **environment: str) -> str:
        return _run(
            [*self.compose_words, "--ansi", "never", *words],
            timeout=timeout,
            env={**_TRUSTED, **os.environ, "LIFEBOAT_IMAGE": self.name, **environment},
        )

    def docker(self, *words: str) -> str:
        return _run(["docker", *words], timeout=120)

    def shell(self, script: str) -> str:
        """What a script prints in a container with nothing but the image."""
        words = ("--rm", "--network=none", "--entrypoint=sh", self.name, "-c", script)
        return self.docker("run", *words)

    def start(
        self,
        *words: str,
        volumes: Path,
        mounts: Collection[Path],
        env_file: Path,
        environment: Mapping[str, str],
    ) -> subprocess.Popen:
        """Run Lifeboat as docs/containers.md says, each mount at the path that it has outside."""
        places = [f"--volume={place}:{place}" for place in (volumes, *mounts)]
        told = [f"--env={name}={value}" for name, value in environment.items()]
        return subprocess.Popen(
            [
                *("docker", "run", "--rm", "--network=host", "--pid=host"),
                "--security-opt=seccomp=unconfined",
                f"--volume={self.socket}:/var/run/docker.sock",
                *(*places, f"--env-file={env_file}", *told, self.name, *words),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _run(words: Collection[str], *, timeout: float, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        list(words), capture_output=True, text=True, timeout=timeout, env=env, cwd=ROOT
    )
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stderr}\n{done.stdout}"
    return done.stdout
