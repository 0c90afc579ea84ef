"""Repositories whose password is quick to try: for tests that open them thousands of times.

restic makes each guess at a password cost half a second of one core, and so each of its own calls.
The key in a repository says itself how much (scrypt's N, r, p), so it can be sealed again more
cheaply; everything else about the repository, and about restic, is as ever.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from lifeboat.tools import s3
from lifeboat.tools.restic import keys

_COST = {"N": 2, "r": 8, "p": 1}
_ROOT = Path(__file__).resolve().parents[2]


def write_restic(program: Path, real: Path) -> None:
    """Write a restic that is the real one, but for the key of each repository that it makes."""
    python, module = shlex.quote(sys.executable), "tests.system.quick_keys"
    program.write_text(
        f"""#!/bin/sh
case " $* " in
  *" init "*) {shlex.quote(str(real))} "$@" || exit
              cd {shlex.quote(str(_ROOT))} && exec {python} -m {module} "$@" ;;
esac
exec {shlex.quote(str(real))} "$@"
"""
    )
    program.chmod(0o755)


def _after_init(words: list[str]) -> None:
    """Make the key quick of the repository that `restic init` was called for."""
    [location] = [word.removeprefix("--repo=") for word in words if word.startswith("--repo=")]
    password = os.environ["RESTIC_PASSWORD"]
    if not location.startswith("s3:"):
        make_quick(Path(location), password)
        return
    url = urlsplit(location.removeprefix("s3:"))
    bucket, _, prefix = url.path.lstrip("/").partition("/")
    place = s3.Bucket(
        endpoint=f"{url.scheme}://{url.netloc}",
        name=bucket,
        region=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )
    make_quick_in(place, prefix.rstrip("/"), password)


def make_quick(repository: Path, password: str) -> None:
    """Replace the one key of a repository in a directory."""
    [old] = (repository / "keys").iterdir()
    data = _sealed_again(old.read_bytes(), password)
    (repository / "keys" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    old.unlink()


def make_quick_in(bucket: s3.Bucket, prefix: str, password: str) -> None:
    """Replace the one key of a repository in a bucket."""
    [old] = bucket.list(f"{prefix}/keys/")
    data = _sealed_again(bucket.get(old.key), password)
    bucket.put(f"{prefix}/keys/{hashlib.sha256(data).hexdigest()}", data)
    # With its versions, or a bucket that keeps them would show a loss.
    told = bucket.client.list_object_versions(Bucket=bucket.name, Prefix=bucket.full_key(old.key))
    for version in told.get("Versions", []):
        with contextlib.suppress(ClientError):  # in a bucket that locks them both keys stay
            bucket.client.delete_object(
                Bucket=bucket.name, Key=version["Key"], VersionId=version["VersionId"]
            )


def _sealed_again(key: bytes, password: str) -> bytes:
    told = json.loads(key)
    master = keys.unseal(base64.b64decode(told["data"]), keys.derive(told, password))
    salt = base64.b64encode(secrets.token_bytes(64)).decode()
    quick = {**told, **_COST, "salt": salt}
    sealed = keys.seal(master, keys.derive(quick, password))
    return json.dumps({**quick, "data": base64.b64encode(sealed).decode()}).encode()


if __name__ == "__main__":
    _after_init(sys.argv[1:])
