"""docs/protect-your-platform.md, followed word for word on a platform that is not ours.

The commands and files come out of the page, in its order; what they print is compared with it. The
only liberty: the places and addresses of the example become those of this machine.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from staging.s3 import S3Server
from tests.system.conftest import S3_SECRETS
from tests.system.museum_site import Museum

pytestmark = [
    pytest.mark.system,
    # The first test pays for the images where the engine has not got them: three minutes.
    pytest.mark.timeout(900),
]

PAGE = (Path(__file__).parents[2] / "docs/protect-your-platform.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


class Reader:
    """Somebody who has the page before them, and types."""

    def __init__(self, museum: Museum, s3: S3Server) -> None:
        self.museum = museum
        s3.create_bucket(bucket := f"museum-vault-{secrets.token_hex(3)}")
        self.s3, self.bucket = s3, bucket
        key, secret = S3_SECRETS.values()
        self.here = {
            "/root/lifeboat-secrets.env": str(museum.secrets),
            "/srv/museum": str(museum.server),
            "/var/lib/lifeboat/museum": str(museum.vault),
            "https://git.example.test/museum.git": str(museum.origin),
            "https://s3.example.test": s3.endpoint,
            "museum-vault": bucket,
            "the-key-of-the-bucket": key,
            "and-its-secret": secret,
            "project_name: museum": f"project_name: {museum.project}\n"
            f"  volumes_directory: {museum.volumes}",
            "volume:museum_": f"volume:{museum.project}_",
            "port: 5433": f"port: {museum.db_port}",
            "127.0.0.1:9000": f"127.0.0.1:{museum.web_port}",
            "127.0.0.1:9009": f"127.0.0.1:{museum.supervisor_port}",
        }
        self.pages: dict[str, list[tuple[str, str]]] = {}
        for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
            self.pages[title[:1]] = [
                (f"{kind} {name}".strip(), body) for kind, name, body in BLOCK.findall(text)
            ]

    def block(self, section: str, kind: str) -> str:
        found = [body for k, body in self.pages[section] if k == kind]
        assert found, f"section {section} of the page has no block of {kind}"
        return self.translated(found[0])

    def translated(self, text: str) -> str:
        for theirs, ours in self.here.items():
            text = text.replace(theirs, ours)
        return text

    def follow(self, section: str) -> str:
        """Do all that a section says, one block after another; give what was printed."""
        printed, since = "", ""
        for kind, body in self.pages[section]:
            if kind.split()[0] == "sh":
                since = self.type(self.translated(body))
                printed += since
            elif kind == "text":
                prints(since, body)
        return printed

    def do(self, section: str, kind: str) -> None:
        """Type one block, and compare with what stands below it."""
        kinds = [k for k, _ in self.pages[section]]
        position = kinds.index(kind)
        assert kinds[position + 1] == "text"
        prints(self.type(self.block(section, kind)), self.pages[section][position + 1][1])

    def type(self, commands: str, *, ok: int = 0) -> str:
        kept = {n: os.environ[n] for n in ("HOME", "DOCKER_HOST") if n in os.environ}
        # The shell of a reader: a new one for each section, so the variables of the last one are
        # given on, as they are in a terminal that stays open.
        head = f"cd {self.museum.server} 2>/dev/null || cd /\n"
        if self.museum.secrets.exists():
            head += f"set -a; . {self.museum.secrets}; set +a\n"
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail"],
            input=head + commands,
            env={**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == ok, f"{commands}\n{done.stdout}\n{done.stderr}"
        for name, value in S3_SECRETS.items():
            if name == "AWS_SECRET_ACCESS_KEY":
                assert value not in done.stdout + done.stderr
        return done.stdout if not ok else done.stderr


def prints(output: str, told: str) -> None:
    """What the page shows is printed, line by line and in this order; … stands for anything."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    position = 0
    for line in told.splitlines():
        words = " ".join(line.split())
        if words == "…":
            continue
        pattern = re.compile(".*?".join(map(re.escape, words.split("…"))) + r"\Z")
        while position < len(lines) and not pattern.match(lines[position]):
            position += 1
        assert position < len(lines), f"{line!r} is not printed (in this order) in:\n{output}"
        position += 1


@pytest.fixture(scope="module")
def reader(
    docker_host: str, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    museum = Museum(tmp_path_factory.mktemp("guide") / "m")
    museum.root.mkdir()
    try:
        museum.create()
        museum.harbour = museum.add("photos", "harbour 1911.jpg")
        museum.letter = museum.add("letters", "to my brother.txt")
        yield Reader(museum, s3_server)
    finally:
        museum.lose_server(images=True)
        shutil.rmtree(museum.root)


def test_from_nothing_to_a_backup_that_is_proven(reader: Reader) -> None:
    reader.follow("1")
    museum = reader.museum
    (museum.server / "lifeboat.yaml").write_text(reader.block("2", "yaml"))
    (museum.server / "lifeboat-services.conf").write_text(reader.block("4", "ini"))
    for section in ("3", "4", "5", "6"):
        reader.follow(section)
    assert reader.type("lifeboat enrol").strip() == "changed: nothing"


def objects(reader: Reader) -> set[tuple[str, str]]:
    listed = reader.s3._client().list_objects_v2(Bucket=reader.bucket)
    assert not listed["IsTruncated"]
    # restic's locks come and go.
    return {(o["Key"], o["ETag"]) for o in listed["Contents"] if "/locks/" not in o["Key"]}


def test_a_rehearsal_on_another_machine_writes_nothing_to_the_bucket(reader: Reader) -> None:
    museum = reader.museum
    museum.late = museum.add("letters", "the last one.txt")
    reader.type("lifeboat backup files; lifeboat wal ship")
    # The other machine: the same engine, without anything of the museum in it.
    museum.lose_server()
    before = objects(reader)
    reader.follow("7")
    assert all(museum.has(item) for item in (museum.harbour, museum.letter, museum.late))
    assert objects(reader) == before
    for words in ("lifeboat backup files", "lifeboat wal ship", "lifeboat backup database"):
        assert "only rehearsed" in reader.type(words, ok=3)
    assert objects(reader) == before


def test_the_server_comes_back_from_git_bucket_and_paper(reader: Reader) -> None:
    museum = reader.museum
    museum.lose_server(images=True)
    reader.do("8", "sh disaster")
    assert all(museum.has(item) for item in (museum.harbour, museum.letter, museum.late))
    done = subprocess.run(
        ["git", "-C", museum.server, "rev-parse", "--abbrev-ref", "HEAD"], capture_output=True
    )
    assert done.stdout == b"production\n"
    assert reader.type("lifeboat backup files").startswith("files-")


def test_database_and_files_come_back_on_their_own_machine(reader: Reader) -> None:
    museum = reader.museum
    reader.type("lifeboat backup database; lifeboat backup files")
    item = museum.add("letters", "after the backup.txt")
    museum.stack.stop(["catalogue-db"])
    shutil.rmtree(museum.volume("shelf") / "cluster")
    reader.do("8", "sh database")
    for path in museum.volume("photos").iterdir():
        path.write_bytes(b"damaged")
    reader.do("8", "sh files")
    assert all(museum.has(thing) for thing in (museum.harbour, museum.letter, item))
