"""Become one of the services of docker-compose.yml, in Lifeboat's own image.

    python start.py database                 Prefect's PostgreSQL, made where there is none
    python start.py server                   Prefect's server
    python start.py worker POOL NAME         what runs a pool's flows on the platform's host
    python start.py staging                  the staging platform and its S3 store

Everything is told by the environment (docker-compose.yml), the passwords by a volume.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from passwords import ensure_passwords, read_passwords

_DATABASE = Path("/var/lib/postgresql/data")
_AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--")


def database() -> None:
    """Make the passwords and the cluster where they are missing, then become PostgreSQL.

    The password of the volume is the one that counts: a cluster that knows another one, as after
    the passwords' volume was lost, is given it.
    """
    password = ensure_passwords()["PREFECT_DATABASE_PASSWORD"]
    subprocess.run(["chown", "postgres:postgres", str(_DATABASE)], check=True)
    if not (_DATABASE / "PG_VERSION").exists():
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(password)
            file.flush()
            subprocess.run(["chown", "postgres", file.name], check=True)
            options = ("--auth-host=scram-sha-256", "--auth-local=peer", "--encoding=UTF8")
            subprocess.run(
                [
                    *(*_AS_POSTGRES, "initdb", "--pgdata", str(_DATABASE)),
                    *("--username=postgres", f"--pwfile={file.name}", "--locale=C", *options),
                ],
                check=True,
            )
        with (_DATABASE / "pg_hba.conf").open("a", encoding="utf-8") as out:
            out.write("host all all all scram-sha-256\n")
    quoted = password.replace("'", "''")
    subprocess.run(
        [*_AS_POSTGRES, "postgres", "--single", "-D", str(_DATABASE), "postgres"],
        input=f"ALTER ROLE postgres PASSWORD '{quoted}'\n".encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    become(*_AS_POSTGRES, "postgres", "-D", str(_DATABASE), "-clisten_addresses=*")


def server() -> None:
    known = read_passwords()
    os.environ.update(
        PREFECT_API_AUTH_STRING=known["PREFECT_API_AUTH_STRING"],
        PREFECT_SERVER_API_AUTH_STRING=known["PREFECT_API_AUTH_STRING"],
        PREFECT_SERVER_ENCRYPTION_KEY=known["PREFECT_SERVER_ENCRYPTION_KEY"],
        PREFECT_API_DATABASE_CONNECTION_URL=(
            f"postgresql+asyncpg://postgres:{known['PREFECT_DATABASE_PASSWORD']}"
            "@prefect-database:5432/postgres"
        ),
    )
    become("prefect", "server", "start", "--host", "0.0.0.0", "--port", "4200")


def worker(pool: str, name: str) -> None:
    """Apply prefect.yaml where there is a platform already, then become the worker.

    A platform that is not there yet is no mistake: a new machine waits for its recovery.
    """
    os.environ["PREFECT_API_AUTH_STRING"] = read_passwords()["PREFECT_API_AUTH_STRING"]
    if told := os.environ.get("LIFEBOAT_SECRETS"):
        # What is set besides, and not empty, wins.
        known = {name: value for name, value in os.environ.items() if value}
        os.environ.update(read_passwords(Path(told)) | known)
    if Path(os.environ["LIFEBOAT_CONFIG"]).exists():
        subprocess.run(["lifeboat", "deploy"], check=True)
        # The runs that the worker before this one took with it. If it fails they end later.
        subprocess.run(["lifeboat", "reconcile"], check=False)
    else:
        print(f"There is no {os.environ['LIFEBOAT_CONFIG']} yet: nothing is deployed.", flush=True)
    queue = os.environ["LIFEBOAT_PLATFORM"]
    become(
        *("lifeboat", "work", "--name", name, "--pool", pool, "--work-queue", queue),
        # Somebody waits for a recovery.
        *("--poll-seconds", "0.5" if name == "recoveries" else "2"),
        # Docker gives it 60 s.
        *("--drain-seconds", "30"),
    )


def staging() -> None:
    """Make the staging platform where there is none, start it, and hold its S3 store."""
    from lifeboat.settings import give_secrets, load_settings
    from staging.contained_site import ContainedSite
    from tasks import vault

    site = ContainedSite(Path(os.environ["LIFEBOAT_MOUNT"]))
    if not site.exists:
        site.create(scale=float(os.environ.get("STAGING_SCALE", "1")))
    site.start()
    give_secrets(site.environment())
    vault.prepare_vault(load_settings(site.settings_path))
    site.stack.start(["wal-receiver", "keeper"])
    print(f"The staging platform is at {site.base_urls.backend}", flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    site.stop()


def become(*words: str) -> None:
    os.execvp(words[0], words)


def main() -> None:
    what, *more = sys.argv[1:]
    {"database": database, "server": server, "worker": worker, "staging": staging}[what](*more)


if __name__ == "__main__":
    main()
