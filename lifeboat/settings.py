"""Settings: the only reader of lifeboat.yaml and of the environment.

`load_settings` resolves paths and reports all mistakes together, each with its line and its dotted
key. Secrets are looked up when they are needed and never held, so no repr, pickle or record of the
settings has one.
"""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
)

from lifeboat.core.checklist import PLACEHOLDER, Checks
from lifeboat.core.errors import SettingsError

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
}
"""The secrets by name, and what each is for. A check may name others as `${NAME}`."""


def _resolve(value: Path, info: ValidationInfo) -> Path:
    """Below the directory of lifeboat.yaml; symbolic links stay, a restore must not follow them."""
    value = value.expanduser()
    if info.context and "directory" in info.context:
        return Path(os.path.normpath(info.context["directory"] / value))
    return value


def _resolve_repository(value: str, info: ValidationInfo) -> str:
    # `https://host/path` and `user@host:path` are git's; the rest are paths.
    if ":" in value:
        return value
    return str(_resolve(Path(value), info))


SitePath = Annotated[Path, AfterValidator(_resolve)]
"""A path; a relative one is below the directory of lifeboat.yaml."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objectives(_Section):
    """What the plan promises."""

    rto_seconds: float = Field(
        default=14400, gt=0, description="Recovery Time Objective: the longest downtime."
    )
    rpo_seconds: float = Field(
        default=3600, gt=0, description="Recovery Point Objective: the most that may be lost."
    )


class _Services(_Section):
    critical_services: tuple[str, ...] = Field(
        min_length=1,
        description="Services without which the platform is down, in their order of starting.",
    )
    deferred_services: tuple[str, ...] = Field(
        default=(), description="Services that are started after the platform has been verified."
    )
    backup_services: tuple[str, ...] = Field(
        default=(),
        description="Services that make backups (the WAL receiver, the keeper); a recovery starts "
        "them last, so that they never back up what is not proven.",
    )

    @property
    def services(self) -> tuple[str, ...]:
        """All that are named here."""
        return (*self.critical_services, *self.deferred_services, *self.backup_services)


class ProcessStackSettings(_Services):
    """Services as plain processes under supervisor."""

    kind: Literal["process"] = Field(description="What runs the services: `process` or `compose`.")
    supervisor_config: SitePath = Field(description="supervisor's configuration file.")


class ComposeStackSettings(_Services):
    """Services as containers of Docker Compose."""

    kind: Literal["compose"] = Field(description="What runs the services: `process` or `compose`.")
    compose_file: SitePath = Field(description="The Compose file, docker-compose.prod.yml.")
    env_file: SitePath | None = Field(
        default=None, description="Environment file that is given to `docker compose --env-file`."
    )
    project_name: Name | None = Field(
        default=None, description="Name of the Compose project; default: Compose's own."
    )


StackSettings = Annotated[ProcessStackSettings | ComposeStackSettings, Field(discriminator="kind")]


class Code(_Section):
    """The platform's application code."""

    repository: Annotated[str, AfterValidator(_resolve_repository)] = Field(
        min_length=1, description="URL or path of the git repository."
    )
    branch: str = Field(default="production", min_length=1, description="Branch that is deployed.")
    directory: SitePath = Field(description="Where the code is checked out.")


class Database(_Section):
    """The platform's PostgreSQL, and the role with REPLICATION that backs it up."""

    service: str = Field(description="Name of the database's service in the stack.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Host of the server.")
    port: int = Field(default=5432, ge=1, le=65535, description="Port of the server.")
    name: str = Field(min_length=1, description="Name of the platform's database.")
    user: str = Field(
        default="lifeboat",
        min_length=1,
        description="Role with LOGIN, REPLICATION and pg_read_all_data; its password is "
        "LIFEBOAT_DATABASE_PASSWORD.",
    )
    data_directory: SitePath = Field(description="The server's data directory on this host.")
    bin_directory: SitePath | None = Field(
        default=None,
        description="Directory of PostgreSQL's programs (pg_basebackup, pg_verifybackup, ...), of "
        "the server's major version; default: those on PATH.",
    )
    wal: Literal["synchronous", "asynchronous"] = Field(
        default="asynchronous",
        description="synchronous: a commit waits until the WAL receiver has it too, so that no "
        "acknowledged row is lost, and stops while the receiver is down. asynchronous: it does not "
        "wait, and milliseconds may be lost.",
    )


class Files(_Section):
    """The file storage."""

    directories: Mapping[Name, SitePath] = Field(
        min_length=1, description="Protected directories, by a name of your choice."
    )
    services: tuple[str, ...] = Field(
        default=(), description="Services that use the files; stopped while files are repaired."
    )
    manifest_query: str | None = Field(
        default=None,
        description="Query that gives path (below one of the directories), SHA-256 and bytes of "
        "every file that the database refers to. Without it no file can be proven.",
    )


class Models(_Section):
    """The AI models."""

    directories: Mapping[Name, SitePath] = Field(
        min_length=1, description="Protected directories, by a name of your choice."
    )
    services: tuple[str, ...] = Field(
        default=(), description="Services that load the models; restarted when models are repaired."
    )


class Config(_Section):
    """The configuration: all that a blank machine needs besides code and data."""

    paths: tuple[SitePath, ...] = Field(
        min_length=1,
        description="Files and directories: lifeboat.yaml, environment files, certificates, "
        "compose, nginx, monitoring.",
    )


class S3(_Section):
    """The copy off this host."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+[^\s]*$",
        description="URL of the S3 service; left out: Amazon's own.",
    )
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Name of the bucket."
    )
    region: str = Field(default="us-east-1", min_length=1, description="Region of the bucket.")
    prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._/-]*$",
        description="The vault's place inside the bucket; empty: all of it.",
    )


class Vault(_Section):
    """Where backups are kept: on this host and in S3."""

    local: SitePath = Field(
        description="Directory of the local vault (/backups in production). On the data "
        "directory's file system, so that a base copy can be renamed into place."
    )
    s3: S3 = Field(description="The bucket.")
    restic_program: SitePath | None = Field(
        default=None,
        description="restic; default: the one of `make setup`, or else the one on PATH.",
    )


class Keep(_Section):
    """How often the keeper works, on a host without a Prefect server."""

    wal_seconds: float = Field(default=60, gt=0, description="Between shipments of WAL to S3.")
    files_seconds: float = Field(
        default=1800, gt=0, description="Between backups of the files; at most the RPO."
    )
    database_seconds: float = Field(
        default=21600, gt=0, description="Between base copies of the database."
    )
    models_seconds: float = Field(default=86400, gt=0, description="Between backups of the models.")
    config_seconds: float = Field(
        default=3600, gt=0, description="Between backups of the configuration."
    )


class Retention(_Section):
    """How long recovery points are kept; never fewer than `minimum`, nor without a verified one."""

    local_days: float = Field(default=30, gt=0, description="Days in the local vault.")
    s3_days: float = Field(default=90, gt=0, description="Days in S3.")
    minimum: int = Field(
        default=3, ge=1, description="How many of the newest points of each asset always stay."
    )


class Recovery(_Section):
    """The time box of each rung of the database's ladder; then the next one is tried."""

    restart_seconds: float = Field(
        default=120, gt=0, description="Restart the service and wait until it answers."
    )
    hot_seconds: float = Field(
        default=900, gt=0, description="Rename the hot copy into place and replay the WAL."
    )
    local_seconds: float = Field(
        default=3600, gt=0, description="Restore from the local vault and replay the WAL."
    )
    s3_seconds: float = Field(default=7200, gt=0, description="Restore from S3 and replay the WAL.")


class Settings(_Section):
    """All of lifeboat.yaml. Made by `load_settings`."""

    platform: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=63,
        description="Name of the platform; an operator types it to approve a recovery.",
    )
    environment: Literal["staging", "production"] = Field(
        description="Drills break staging; they refuse to break production."
    )
    secrets_file: SitePath | None = Field(
        default=None,
        description="File of KEY=VALUE lines with the secrets, mode 0600. The process environment "
        "wins over it.",
    )
    objectives: Objectives = Field(default=Objectives(), description="What the plan promises.")
    stack: StackSettings = Field(description="What runs the services, and which there are.")
    code: Code | None = Field(
        default=None, description="The application's code; without it a lost server stays without."
    )
    database: Database = Field(description="The platform's PostgreSQL.")
    files: Files = Field(description="The file storage.")
    models: Models = Field(description="The AI models.")
    config: Config = Field(description="The configuration.")
    vault: Vault = Field(description="Where backups are kept.")
    keep: Keep = Field(default=Keep(), description="How often the keeper works.")
    retention: Retention = Field(default=Retention(), description="How long backups are kept.")
    recovery: Recovery = Field(default=Recovery(), description="Time boxes of a recovery.")
    checks: Checks = Field(default=Checks(), description="The eighteen checks of verify-recovery.")

    _file: Path = PrivateAttr(default=Path(DEFAULT_NAME))

    @property
    def file(self) -> Path:
        """The lifeboat.yaml that this was read from."""
        return self._file

    @property
    def directory(self) -> Path:
        """The directory of lifeboat.yaml, below which relative paths are."""
        return self._file.parent

    def secret(self, name: str) -> str:
        """Give a secret: from the process environment, or else from `secrets_file`.

        Raises SettingsError, saying where to set it, if it is in neither.
        """
        value = self.optional_secret(name)
        if value is not None:
            return value
        where = "in the environment"
        if self.secrets_file:
            there = "" if self.secrets_file.exists() else " (which does not exist)"
            where += f" or in {self.secrets_file}{there}"
        what = f" ({SECRETS[name]})" if name in SECRETS else ""
        raise SettingsError(
            f"Reading the secret {name}{what}: it is not set.", hint=f"Set {name} {where}."
        )

    def optional_secret(self, name: str) -> str | None:
        """Like `secret`, and None if it is not set. An empty value counts as not set."""
        return os.environ.get(name) or _read_secrets(self.secrets_file).get(name) or None

    def fill(self, text: str) -> str:
        """Replace each `${NAME}` by the secret of that name. Raises SettingsError as `secret`."""
        return PLACEHOLDER.sub(lambda match: self.secret(match[1]), text)

    def restic_program(self) -> Path:
        """Give restic as configured, or the one of `make setup`, or else the one on PATH.

        Raises SettingsError if it is nowhere.
        """
        if self.vault.restic_program and self.vault.restic_program.exists():
            return self.vault.restic_program
        return find_restic(self.directory)


def find_restic(directory: Path | None = None) -> Path:
    """Give the restic of `make setup`, or else the one on PATH. Raises SettingsError if neither."""
    places = (Path.cwd(), *((directory,) if directory else ()), Path(__file__).parent.parent)
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


def secret_of_environment(name: str) -> str:
    """A secret on a host that has no settings yet. Raises SettingsError if it is not set."""
    value = os.environ.get(name)
    if value:
        return value
    raise SettingsError(
        f"Reading the secret {name} ({SECRETS[name]}): it is not set.",
        hint=f"Set {name} in the environment.",
    )


def default_config_path() -> Path:
    """LIFEBOAT_CONFIG, or else lifeboat.yaml in the current directory."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_NAME)


def give_secrets(secrets: Mapping[str, str]) -> None:
    """Put secrets into this process's environment, as an operator's shell does."""
    os.environ.update(secrets)


def prepare_ephemeral_prefect() -> None:
    """Before Prefect is imported with a server of its own: patient at the start, and no telemetry.

    What the user has set stays. On a fresh machine the start takes up to half a minute.
    """
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def prefect_api_url() -> str:
    """URL of the Prefect server that this process is configured for; empty if for none."""
    return os.environ.get("PREFECT_API_URL", "")


def load_settings(path: Path | str | None = None, *, directory: Path | None = None) -> Settings:
    """Read lifeboat.yaml and the secrets that go with it.

    Relative paths are below `directory`, by default the one of the file: a copy of the settings can
    be read before it lies where it will lie.

    Raises SettingsError with every mistake, each as `file:line: key: what is wrong`.
    """
    file = Path(path) if path else default_config_path()
    file = file.expanduser().absolute()
    data = _read_yaml(file)
    try:
        below = {"directory": directory or file.parent}
        settings = Settings.model_validate(_plain(data), context=below)
    except ValidationError as error:
        raise _settings_error(file, data, list(_mistakes(error))) from error
    mistakes = list(_contradictions(settings))
    if mistakes:
        raise _settings_error(file, data, mistakes)
    settings._file = directory / file.name if directory else file
    return settings


# --- lifeboat.yaml --------------------------------------------------------------------------


def _read_yaml(file: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(
            f"Reading the settings: there is no {file}.",
            hint=f"Name it with --config or {CONFIG_VARIABLE}, or change to its directory.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"Reading the settings: {file} can't be read ({error}).",
            hint="Look at its owner and mode; it is text in UTF-8.",
        ) from error
    try:
        data = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = " ".join(str(error.problem or error.context or error).split())
        what = what.partition(" with value ")[0]  # a duplicate's value may be anything
        raise SettingsError(
            f"{file}{line}: this is not valid YAML: {what}.", hint="Correct that line."
        ) from error
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise SettingsError(
            f"{file}: this is not valid YAML: {what}.", hint="Correct it."
        ) from error
    if not isinstance(data, Mapping):
        raise SettingsError(
            f"{file}:1: there are no settings in it.",
            hint="Restore it from the vault, or begin with `platform: NAME`.",
        )
    return data


def _plain(value: Any) -> Any:
    """The same without ruamel's types, which remember lines and comments."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)  # a date, a set: nothing here wants one


class _Mistake(typing.NamedTuple):
    location: tuple[str | int, ...]
    what: str


_WHY_REQUIRED = {
    "vault.s3": "it is required: without a copy off this host a lost server can't be recovered",
    "config": "it is required: without its configuration a lost server can't be rebuilt",
}


def _mistakes(error: ValidationError) -> Iterator[_Mistake]:
    all_told = error.errors(include_url=False, include_input=False)
    for told in all_told:
        location, kind = tuple(told["loc"]), told["type"]
        if kind == "too_short" and any(
            len(other["loc"]) > len(location) and tuple(other["loc"][: len(location)]) == location
            for other in all_told
        ):
            continue  # short only because its members are wrong, which is told already
        if kind == "missing":
            dotted = ".".join(_words(location))
            yield _Mistake(location, _WHY_REQUIRED.get(dotted, "it is required and missing"))
        elif kind == "extra_forbidden":
            yield _Mistake(location, "there is no such key" + _did_you_mean(location))
        else:
            what = told["msg"].removeprefix("Value error, ")
            yield _Mistake(location, what[:1].lower() + what[1:])


def _did_you_mean(location: tuple[str | int, ...]) -> str:
    known = _keys_at(Settings, location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; there are {', '.join(known)}" if known else ""


def _keys_at(annotation: Any, location: tuple[str | int, ...]) -> list[str]:
    """The keys that the model at a location of a ValidationError has."""
    models = [m for m in _models_in(annotation)]
    if not location:
        return [field.alias or name for m in models for name, field in m.model_fields.items()]
    step, rest = location[0], location[1:]
    for model in models:
        for name, field in model.model_fields.items():
            if step in (name, field.alias):
                return _keys_at(field.annotation, rest)
        # The tag of a union is part of the location: ("stack", "process", "supervisor_config").
        kind = model.model_fields.get("kind")
        if kind is not None and step in typing.get_args(kind.annotation):
            return _keys_at(model, rest)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _keys_at(arguments[0], location)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((keys for a in arguments if (keys := _keys_at(a, location))), [])
    # A mapping's values or a tuple's members: the step is their key or index.
    return next((keys for a in reversed(arguments) if (keys := _keys_at(a, rest))), [])


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _settings_error(file: Path, data: Any, mistakes: list[_Mistake]) -> SettingsError:
    told = []
    for mistake in mistakes:
        line, words = _address(data, mistake.location)
        key = ".".join(words)
        end = "" if mistake.what.endswith("?") else "."
        told.append((line, f"{file}:{line}: {key + ': ' if key else ''}{mistake.what}{end}"))
    told.sort(key=lambda item: item[0])
    count = "1 mistake" if len(told) == 1 else f"{len(told)} mistakes"
    lines = "\n".join(f"  {text}" for _, text in told)
    return SettingsError(
        f"Reading the settings: {count}.\n{lines}\n", hint="Nothing was done. Correct the settings."
    )


def _address(data: Any, location: tuple[str | int, ...]) -> tuple[int, list[str]]:
    """The line of a location, or of the nearest thing above it that is in the file; its words."""
    line, words = 1, []
    for index, step in enumerate(location):
        try:
            if isinstance(data, Mapping) and step in data:
                line = data.lc.key(step)[0] + 1
            elif isinstance(data, list) and isinstance(step, int):
                line = data.lc.item(step)[0] + 1
            elif isinstance(data, Mapping) and index == len(location) - 1:
                words.append(str(step))  # a key that is missing
                continue
            else:
                continue  # a union's tag, which is not in the file
            data = data[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            data = data[step] if isinstance(data, (Mapping, list)) else None
        words.append(str(step))
    return line, words


def _words(location: tuple[str | int, ...]) -> list[str]:
    return [str(step) for step in location]


# --- what contradicts itself ----------------------------------------------------------------


def _contradictions(settings: Settings) -> Iterator[_Mistake]:
    yield from _services_named_twice(settings)
    yield from _unknown_services(settings)
    yield from _names_used_twice(settings)
    yield from _places_in_each_other(settings)
    yield from _unknown_sessions(settings.checks)


def _services_named_twice(settings: Settings) -> Iterator[_Mistake]:
    seen: dict[str, str] = {}
    for key in ("critical_services", "deferred_services", "backup_services"):
        for index, name in enumerate(getattr(settings.stack, key)):
            if name in seen:
                yield _Mistake(("stack", key, index), f"service {name} is already in {seen[name]}")
            seen[name] = key


def _unknown_services(settings: Settings) -> Iterator[_Mistake]:
    critical = settings.stack.critical_services
    if settings.database.service not in critical:
        yield _Mistake(
            ("database", "service"),
            f"{settings.database.service} is not among stack.critical_services"
            + _close(settings.database.service, critical),
        )
    known = settings.stack.services
    for section in ("files", "models"):
        for index, name in enumerate(getattr(settings, section).services):
            if name not in known:
                yield _Mistake(
                    (section, "services", index),
                    f"{name} is not among the services of `stack`" + _close(name, known),
                )


def _names_used_twice(settings: Settings) -> Iterator[_Mistake]:
    for name in settings.models.directories:
        if name in settings.files.directories:
            yield _Mistake(
                ("models", "directories", name), "files.directories has the same name already"
            )
    seen: set[str] = set()
    for index, path in enumerate(settings.config.paths):
        if path.name in seen:
            yield _Mistake(
                ("config", "paths", index), f"another path here ends in {path.name} as well"
            )
        seen.add(path.name)


def _places_in_each_other(settings: Settings) -> Iterator[_Mistake]:
    """A backup of the vault into itself; or data that two restores would both replace."""
    vault = settings.vault.local
    data: dict[tuple[str | int, ...], Path] = {
        ("database", "data_directory"): settings.database.data_directory
    }
    for section in ("files", "models"):
        for name, path in getattr(settings, section).directories.items():
            data[(section, "directories", name)] = path
    kept = {("config", "paths", i): path for i, path in enumerate(settings.config.paths)}
    for location, path in (data | kept).items():
        if path.is_relative_to(vault):
            yield _Mistake(location, f"{path} lies in the vault ({vault}); it would go with it")
        elif vault.is_relative_to(path):
            yield _Mistake(location, f"the vault ({vault}) lies in {path}; it would back up itself")
    places = list(data.items())
    for position, (location, path) in enumerate(places):
        for other, there in places[:position]:
            if path.is_relative_to(there) or there.is_relative_to(path):
                yield _Mistake(
                    location, f"{path} overlaps with {'.'.join(_words(other))} ({there})"
                )


def _unknown_sessions(checks: Checks) -> Iterator[_Mistake]:
    for name in type(checks).model_fields:
        wanted = getattr(getattr(checks, name), "session", "")
        if wanted and wanted not in checks.sessions:
            yield _Mistake(
                ("checks", name, "session"),
                f"checks.sessions has no {wanted}" + _close(wanted, checks.sessions),
            )


def _close(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


# --- secrets --------------------------------------------------------------------------------


def _read_secrets(file: Path | None) -> dict[str, str]:
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
