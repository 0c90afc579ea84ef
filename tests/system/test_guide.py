"""docs/protect-your-platform.md, followed word for word on a platform that is not ours.

The commands and files come out of the page, in its order; what they print is compared with it. The
only liberty: the places and addresses of the example become those of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest

from lifeboat.core import provision
from lifeboat.core.provision import Ec2Settings, Report, Vault
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

    def __init__(self, museum: Museum, s3: S3Server, restic: Path) -> None:
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
            # And what makes it quick.
            "vault:\n": f"vault:\n  restic_program: {restic}\n",
            "checks:\n": "checks:\n  window_seconds: 0.5\n",
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

    def do(self, section: str, kind: str) -> str:
        """Type one block, compare with what stands below it, and give what was printed."""
        kinds = [k for k, _ in self.pages[section]]
        position = kinds.index(kind)
        assert kinds[position + 1] == "text"
        printed = self.type(self.block(section, kind))
        prints(printed, self.pages[section][position + 1][1])
        return printed

    def type(self, commands: str, *, ok: int = 0, error: bool = True) -> str:
        """Type commands in a shell; give what it printed, or of a failure its error output."""
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
        return done.stderr if ok and error else done.stdout


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
    docker_host: str,
    s3_server: S3Server,
    quick_restic: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Reader]:
    museum = Museum(tmp_path_factory.mktemp("guide") / "m")
    museum.root.mkdir()
    try:
        museum.create()
        museum.harbour = museum.add("photos", "harbour 1911.jpg")
        museum.letter = museum.add("letters", "to my brother.txt")
        yield Reader(museum, s3_server, quick_restic)
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
    # What a reader gets wrong first: a service that their Compose file has not got.
    wrong = museum.server / "wrong.yaml"
    text = (museum.server / "lifeboat.yaml").read_text()
    wrong.write_text(text.replace("deferred_services: [clock]", "deferred_services: [clocks]"))
    told = " ".join(reader.type("lifeboat check --config wrong.yaml", ok=3, error=False).split())
    assert "the stack has no clocks" in told
    wrong.unlink()


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


def test_a_machine_that_can_not_take_the_place_is_refused_and_nothing_is_touched(
    reader: Reader, docker_host: str
) -> None:
    """All of it before anything is restored: it is night, and a second mistake would be one."""
    museum = reader.museum
    museum.lose_server()
    command = reader.block("8", "sh disaster")
    assert "there is none" in reader.type(f"export DOCKER_HOST=unix:///nowhere\n{command}", ok=3)
    # Somebody's data lies where ours would go.
    there = museum.volume("letters")
    there.mkdir(parents=True)
    (there / "a diary.txt").write_text("mine")
    assert re.search(r"letters.* is not empty", reader.type(command, ok=3))
    assert (there / "a diary.txt").read_text() == "mine"
    shutil.rmtree(there.parent)
    # The disk is too small for what will come.
    with small_disk(museum.volume("hands")) as place:
        assert re.search(r"(?s)Restoring .*models.*needs .*hands", reader.type(command, ok=3))
        assert list(place.iterdir()) == []
    # A stranger's container holds the volume.
    stranger = docker.from_env().containers.run(
        "debian:trixie-slim",
        ["sleep", "600"],
        name=f"{museum.project}-stranger",
        volumes={f"{museum.project}_photos": {"bind": "/data", "mode": "rw"}},
        detach=True,
    )
    try:
        assert stranger.name in reader.type(command, ok=3)
        assert list(museum.volume("photos").iterdir()) == []
    finally:
        stranger.remove(force=True)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of one megabyte at that place."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        shutil.rmtree(place.parent)


def test_the_server_comes_back_from_git_bucket_and_paper(reader: Reader) -> None:
    museum = reader.museum
    ran, newer = museum.release("A line was added")
    museum.lose_server(images=True)
    printed = reader.do("8", "sh disaster")
    assert f"git commit: {newer}" in printed
    assert f"git commit of lost server: {ran}" in printed
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


# --- docs/ec2.md: what a machine does that was made for it -------------------------------------


class _Parameters(BaseHTTPRequestHandler):
    """Systems Manager's GetParameter, with the one parameter that the machine asks for."""

    text = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = asked == {"Name": "/lifeboat/museum", "WithDecryption": True}
        told = {"Parameter": {"Value": self.text}} if good else {"__type": "ParameterNotFound"}
        self.send_response(200 if good else 400)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_machine_that_was_made_for_it_recovers_by_itself(reader: Reader) -> None:
    """The script's own words, from the secrets on; the operator's side sees it end well."""
    museum = reader.museum
    secret = museum.secrets.read_text()
    museum.lose_server()
    museum.secrets.unlink()
    ec2 = Ec2Settings(
        region="eu-central-1",
        image="ami-0123456789abcdef0",
        instance_type="m7i.large",
        subnet="subnet-0123456789abcdef0",
        instance_profile="lifeboat-recovery",
        secrets="ssm:/lifeboat/museum",
        secrets_file=str(museum.secrets),
        disk_gigabytes=50,
        lifeboat_repository="https://git.example.test/lifeboat.git",
    )
    vault = Vault(
        platform="museum",
        bucket=reader.bucket,
        endpoint=reader.s3.endpoint,
        region="us-east-1",
        into=str(museum.server),
    )
    script = provision.recovering_script(ec2, vault, incident="fire")
    assert (
        script
        in json.loads(
            provision.user_data(ec2, vault, incident="fire").removeprefix("#cloud-config")
        )["write_files"][0]["content"]
    )

    class Parameters(_Parameters):
        text = secret

    with ThreadingHTTPServer(("127.0.0.1", 0), Parameters) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"export AWS_ENDPOINT_URL_SSM=http://127.0.0.1:{server.server_port}\n"
        # Of an instance's profile, as EC2 gives them.
        there += "export AWS_ACCESS_KEY_ID=profile AWS_SECRET_ACCESS_KEY=profile\n"
        reader.type(there + script)
        server.shutdown()
    assert museum.secrets.stat().st_mode & 0o777 == 0o600
    assert museum.has(museum.harbour)
    told = json.loads(
        reader.s3._client()
        .get_object(Bucket=reader.bucket, Key=provision.report_key("fire"))["Body"]
        .read()
    )
    assert Report(**told).in_words() == "recovered: 15 of 15 checks passed"
