"""Somebody else's platform: another Compose project, as a stranger would have it in /srv/museum.

It has nothing of the staging platform but two of its images, so that the tests build none twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import psycopg

from lifeboat.settings import find_compose
from lifeboat.tools.stacks import ComposeStack, engine
from staging import compose_site, processes
from staging.ports import choose_free

_HERE = Path(__file__).parent / "museum"
_STAGING = Path(compose_site.__file__).parent
_WHO = ("-c", "user.name=m", "-c", "user.email=m@example.test", "-c", "core.hooksPath=/dev/null")
_FROM_GIT = ("docker-compose.yml", "Dockerfile", "reading_room.py", "catalogue.sql")


class Museum:
    """The archive below `root`: its server, its git repository, and what lies outside of both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = root / "srv-museum"
        self.secrets = root / "root-lifeboat-secrets.env"
        self.origin = root / "museum.git"
        self.project = f"museum-{hashlib.sha256(str(root).encode()).hexdigest()[:6]}"
        self.db_port, self.web_port, self.supervisor_port = choose_free(3)
        self.reader_password = secrets.token_urlsafe(12)
        self.admin_password = secrets.token_urlsafe(12)
        self.url = f"http://127.0.0.1:{self.web_port}"
        with engine.connected(60) as client:
            self.volumes = Path(client.info()["DockerRootDir"], "volumes")
        # On one mount with the volumes, wherever this engine keeps them.
        self.vault = self.volume("vault")

    @property
    def stack(self) -> ComposeStack:
        return ComposeStack(
            self.server / "docker-compose.yml",
            env_file=self.server / ".env",
            project_name=self.project,
            program=find_compose(),
        )

    def volume(self, name: str) -> Path:
        return self.volumes / f"{self.project}_{name}" / "_data"

    def create(self) -> None:
        """The platform as its owners run it: no Lifeboat anywhere."""
        build_images(self.root / "images")
        work = self.root / "work"
        work.mkdir()
        for name in _FROM_GIT:
            shutil.copy(_HERE / name, work)
        for words in (
            ("-C", work, "init", "--quiet", "--initial-branch=production"),
            ("-C", work, "add", "--all"),
            ("-C", work, *_WHO, "commit", "--quiet", "--message", "The archive"),
            ("clone", "--quiet", "--bare", work, self.origin),
            ("clone", "--quiet", self.origin, self.server),
        ):
            subprocess.run(["git", *words], check=True)
        curator = secrets.token_urlsafe(12)
        (self.server / ".env").write_text(
            f"POSTGRES_IMAGE={compose_site.IMAGES}-postgres\nPYTHON_IMAGE={compose_site.IMAGES}-app\n"
            f"DB_PORT={self.db_port}\nWEB_PORT={self.web_port}\nADMIN_PASSWORD={self.admin_password}\n"
            f"CURATOR_PASSWORD={curator}\nREADER_PASSWORD={self.reader_password}\n"
        )
        self.stack.prepare()
        (self.volume("hands") / "copperplate.bin").write_bytes(secrets.token_bytes(20_000))
        self.stack.start(["catalogue-db"])
        with self.database("postgres") as connection:
            connection.execute(f"CREATE ROLE curator LOGIN PASSWORD '{curator}'")
            connection.execute("CREATE DATABASE archive OWNER curator")
        with self.database("archive") as connection:
            connection.execute("SET ROLE curator")
            connection.execute((_HERE / "catalogue.sql").read_text())
        self.stack.start(["reading-room", "clock"])
        self.wait()

    def release(self, message: str) -> tuple[str, str]:
        """Let the owners push something that is not deployed; give both commits."""
        work = self.root / "work"
        (work / "CHANGES").write_text(message)
        commits = []
        for words in (
            ("rev-parse", "HEAD"),
            ("add", "--all"),
            ("commit", "--quiet", "--message", message),
            ("push", "--quiet", self.origin, "production"),
            ("rev-parse", "HEAD"),
        ):
            done = subprocess.run(
                ["git", "-C", work, *_WHO, *words], check=True, capture_output=True, text=True
            )
            commits += [done.stdout.strip()] if words[0] == "rev-parse" else []
        return commits[0], commits[1]

    def database(self, name: str = "archive") -> psycopg.Connection:
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(
                    host="127.0.0.1",
                    port=self.db_port,
                    dbname=name,
                    user="postgres",
                    password=self.admin_password,
                    autocommit=True,
                )
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            assert time.monotonic() < deadline, self.stack.logs("reading-room")
            time.sleep(0.1)

    def add(self, store: str, title: str) -> tuple[int, str]:
        """Let a reader add something; give its number and SHA-256, as they were acknowledged."""
        told = httpx.post(
            f"{self.url}/items/{store}",
            headers=self._headers(),
            files={"file": (title, secrets.token_bytes(5000))},
            timeout=30,
        )
        assert told.status_code == 201, told.text
        return told.json()["id"], told.json()["sha256"]

    def has(self, item: tuple[int, str]) -> bool:
        number, digest = item
        told = httpx.get(f"{self.url}/items/{number}", headers=self._headers(), timeout=30)
        return told.status_code == 200 and hashlib.sha256(told.content).hexdigest() == digest

    def _headers(self) -> dict[str, str]:
        told = httpx.post(f"{self.url}/enter", json={"password": self.reader_password}, timeout=30)
        return {"Authorization": f"Bearer {told.json()['token']}"}

    def lose_server(self, *, images: bool = False) -> None:
        """The machine is gone: containers, volumes, directory, vault; S3, git and paper remain."""
        if self.server.exists():
            processes.kill_all(self.server)
        with engine.connected(60) as client:
            chosen = {"label": f"com.docker.compose.project={self.project}"}
            for container in client.containers.list(all=True, filters=chosen):
                container.remove(force=True, v=True)
            for network in client.networks.list(filters=chosen):
                network.remove()
            for volume in client.volumes.list():
                if volume.name.startswith(f"{self.project}_"):
                    volume.remove(force=True)
            if images:
                with contextlib.suppress(Exception):
                    client.images.remove(f"{self.project}-reading-room", force=True)
        for left in self.volumes.glob(f"{self.project}_*"):
            shutil.rmtree(left)
        shutil.rmtree(self.server, ignore_errors=True)


def build_images(place: Path) -> None:
    """The staging platform's images of database and application; in no time when they are there."""
    shutil.copytree(_STAGING / "platform", place)
    shutil.copytree(_STAGING / "docker", place / "docker")
    shutil.copy(_STAGING / "docker-compose.prod.yml", place)
    text = (place / "docker-compose.prod.yml").read_text()
    names = set(re.findall(r"\$\{(\w+):\?\}", text))
    # Nothing is started: only the images' name is meant.
    values = dict.fromkeys(names, "1") | {"IMAGES": compose_site.IMAGES, "PROJECT": "images"}
    (place / ".env").write_text("".join(f"{k}={v}\n" for k, v in values.items()))
    program = find_compose()
    subprocess.run(
        [
            *((program,) if program else ("docker", "compose")),
            *("--file", place / "docker-compose.prod.yml", "build", "postgres", "backend"),
        ],
        check=True,
        capture_output=True,
        env={**os.environ},
        cwd=place,
    )
