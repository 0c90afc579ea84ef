"""What the process environment and the secrets file hold: the only reader of both."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from lifeboat.core.errors import SettingsError
from lifeboat.core.secrecy import Secret

CONFIG_VARIABLE = "LIFEBOAT_CONFIG"
DEFAULT_NAME = "lifeboat.yaml"
TOOLS = Path(".lifeboat", "tools", "bin")

SECRETS: dict[str, str] = {
    "LIFEBOAT_VAULT_PASSWORD": "opens the vault; keep it also off this host",
    "LIFEBOAT_DATABASE_PASSWORD": "password of the role `database.user`",
    "AWS_ACCESS_KEY_ID": "access key of the bucket",
    "AWS_SECRET_ACCESS_KEY": "secret key of the bucket",
    "AWS_SESSION_TOKEN": "session token of temporary keys (optional)",
    "LIFEBOAT_CHECK_PASSWORD": "password with which the checks log in to the platform",
    "REDIS_PASSWORD": "password with which the checks log in to Redis",
    "LIFEBOAT_ORCHESTRATOR_PASSWORD": "password of the role `orchestrator.user` (optional)",
}
"""The secrets by name, and what each is for. A check may name others as `${NAME}`."""


def find_restic(directory: Path | None = None) -> Path:
    """Give the restic of `make setup`, or else the one on PATH. Raises SettingsError if neither."""
    places = (Path.cwd(), *((directory,) if directory else ()), Path(__file__).parents[2])
    for place in places:
        program = place / TOOLS / "restic"
        if program.is_file():
            return program
    found = shutil.which("restic")
    if not found:
        raise SettingsError(
            "Looking for restic: it is not on PATH.",
            hint="Run `make setup`, install restic >= 0.17, or set vault.restic_program.",
        )
    return Path(found)


def find_compose(directory: Path | None = None) -> Path | None:
    """Give the Compose that was fetched into the tool folder; None: use what is installed."""
    for place in (Path.cwd(), *((directory,) if directory else ()), Path(__file__).parents[2]):
        program = place / TOOLS / "docker-compose"
        if program.is_file():
            return program
    return None


def optional_secret_of_environment(name: str) -> str | None:
    """A secret of the process environment; None if it is not set. Empty counts as not set."""
    return os.environ.get(name) or None


def secrets_of_environment() -> tuple[Secret, ...]:
    """Those of our own secrets that the process environment holds."""
    return tuple(Secret(name, value) for name in SECRETS if (value := os.environ.get(name)))


def secret_of_environment(name: str) -> str:
    """A secret on a host that has no settings yet. Raises SettingsError if it is not set."""
    value = optional_secret_of_environment(name)
    if value:
        return value
    raise SettingsError(
        f"Reading the secret {name} ({SECRETS[name]}): it is not set.",
        hint=f"Set {name} in the environment.",
    )


def lasting_directory() -> Path:
    """Where a relative path counts from: here. A run that a worker has started has a directory that
    goes with it, so there it is the home of the worker's user.
    """
    return Path.home() if os.environ.get("PREFECT__FLOW_RUN_ID") else Path.cwd()


def default_config_path() -> Path:
    """LIFEBOAT_CONFIG, or else lifeboat.yaml in the current directory."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_NAME)


def give_secrets(secrets: Mapping[str, str]) -> None:
    """Put secrets into this process's environment, as an operator's shell does."""
    os.environ.update(secrets)


def forget_secrets() -> None:
    """Remove our own from this process's environment: one platform's go before another's file."""
    for name in SECRETS:
        os.environ.pop(name, None)


def replace_environment(environment: Mapping[str, str]) -> None:
    """Have this environment and no other, as a process that was started with it."""
    os.environ.clear()
    os.environ.update(environment)


def prepare_ephemeral_prefect() -> None:
    """Before Prefect is imported with a server of its own: patient at the start, and no telemetry.

    What the user has set stays. On a fresh machine the start takes up to half a minute.
    """
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def prefect_api_url() -> str:
    """URL of the Prefect server that this process is configured for; empty if for none."""
    return os.environ.get("PREFECT_API_URL", "")


def read_secrets(file: Path | None) -> dict[str, str]:
    """The KEY=VALUE lines of a file that only its owner may read; none where there is no file.

    On a new host the environment is all there is, so a missing file is no mistake. Read at each
    use, because a recovery may put it back in between.
    """
    if file is None:
        return {}
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise SettingsError(
                f"Reading the secrets: {file} may be read by others (mode {mode:04o}).",
                hint=f"chmod 600 {file}",
            )
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"Reading the secrets: {file} can't be read ({type(error).__name__}).",
            hint="Look at its owner; it is text in UTF-8.",
        ) from None  # the error may quote a part of the file
    secrets = {}
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError(
                f"Reading the secrets: {file}:{number} is not KEY=VALUE.", hint="Correct that line."
            )
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        secrets[name.strip()] = value
    return secrets
