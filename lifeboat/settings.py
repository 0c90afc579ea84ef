"""The only reader of the environment and of lifeboat.yaml.

Every key is documented where it is declared. A wrong file gives one SettingsError that names every
wrong key with its line. Secrets come from the process environment, or else from `secrets_file`.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase, CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lifeboat.core.errors import SettingsError

DEFAULT_NAME = "lifeboat.yaml"
TOOL_FOLDER = Path(".lifeboat/tools/bin")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Services = tuple[str, ...]


class Objectives(_Section):
    rto_seconds: float = Field(default=14400, gt=0, description="Longest acceptable downtime.")
    rpo_seconds: float = Field(default=3600, gt=0, description="Longest acceptable data loss.")


class _StackSection(_Section):
    critical_services: Services = Field(
        min_length=1, description="Services without which the platform is down, in starting order."
    )
    deferred_services: Services = Field(
        default=(), description="Services that may come up after the critical ones are verified."
    )
    backup_services: Services = Field(
        default=(), description="Lifeboat's own services on this host: WAL receiver, keeper."
    )


class ProcessStackSection(_StackSection):
    kind: Literal["process"] = Field(description="Services run as processes under supervisor.")
    supervisor_config: Path = Field(description="supervisord's configuration file.")


class ComposeStackSection(_StackSection):
    kind: Literal["compose"] = Field(description="Services run as a Docker Compose project.")
    compose_file: Path = Field(description="The compose file, e.g. docker-compose.prod.yml.")
    env_file: Path | None = Field(default=None, description="File given to compose as --env-file.")
    project_name: str | None = Field(default=None, description="Compose's project name.")


StackSection = Annotated[ProcessStackSection | ComposeStackSection, Field(discriminator="kind")]


class Code(_Section):
    repository: str = Field(min_length=1, description="Git URL or path of the application's code.")
    branch: str = Field(default="production", description="The branch that is in production.")
    directory: Path = Field(description="Where the code is checked out.")


class Database(_Section):
    service: str = Field(description="The database's name in the stack.")
    host: str = Field(default="127.0.0.1", description="Where the database listens.")
    port: int = Field(default=5432, ge=1, le=65535, description="Its port.")
    name: str = Field(description="The database that holds the platform's tables.")
    user: str = Field(
        default="lifeboat",
        description="Role with LOGIN, REPLICATION and pg_read_all_data; its password is "
        "LIFEBOAT_DATABASE_PASSWORD.",
    )
    data_directory: Path = Field(description="PostgreSQL's data directory on this host.")
    bin_directory: Path | None = Field(
        default=None,
        description="Where pg_basebackup and its kin of the server's major version are; "
        "empty: on PATH.",
    )
    wal: Literal["synchronous", "asynchronous"] = Field(
        default="asynchronous",
        description="synchronous: a commit waits until the WAL receiver has it, so no acknowledged "
        "row is lost. asynchronous: commits do not wait; the receiver trails by milliseconds.",
    )


class Files(_Section):
    directories: Mapping[str, Path] = Field(min_length=1, description="File stores by name.")
    services: Services = Field(default=(), description="Services stopped while files are repaired.")
    manifest_query: str | None = Field(
        default=None,
        description="SQL that gives path, SHA-256 and bytes of each file the database refers to.",
    )


class Models(_Section):
    directories: Mapping[str, Path] = Field(min_length=1, description="Model stores by name.")
    services: Services = Field(default=(), description="Services restarted after models are back.")


class Config(_Section):
    paths: tuple[Path, ...] = Field(
        min_length=1, description="Files and directories that a new server needs, secrets included."
    )


class S3(_Section):
    endpoint: str | None = Field(
        default=None, pattern=r"^https?://", description="The S3 service; empty: Amazon's own."
    )
    bucket: str = Field(min_length=3, max_length=63, description="The bucket that holds the vault.")
    region: str = Field(default="us-east-1", description="The bucket's region.")
    prefix: str = Field(default="", description="The vault's place inside the bucket.")


class Vault(_Section):
    local: Path = Field(description="The vault on this host; /backups in the plan.")
    s3: S3 = Field(
        description="The vault off this host. Required: without it a lost server is lost for good."
    )
    restic_program: Path | None = Field(
        default=None, description="restic >= 0.17; empty: .lifeboat/tools/bin, then PATH."
    )


class Keep(_Section):
    wal_seconds: float = Field(default=60, gt=0, description="How often the keeper ships WAL.")
    files_seconds: float = Field(default=1800, gt=0, description="How often it backs up files.")


class Recovery(_Section):
    restart_seconds: float = Field(default=120, gt=0, description="Time box: restart the database.")
    hot_seconds: float = Field(default=900, gt=0, description="Time box: from the hot copy.")
    local_seconds: float = Field(default=3600, gt=0, description="Time box: from the local vault.")
    s3_seconds: float = Field(default=7200, gt=0, description="Time box: from S3.")


class Settings(_Section):
    """lifeboat.yaml, with paths made absolute. Its repr and its pickle hold no secret."""

    platform: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", description="The platform's name, typed to approve."
    )
    environment: Literal["staging", "production"] = Field(
        description="Drills break only what says staging."
    )
    secrets_file: Path | None = Field(
        default=None, description="KEY=VALUE lines, mode 0600; the process environment wins."
    )
    objectives: Objectives = Field(default=Objectives(), description="RTO and RPO.")
    stack: StackSection = Field(description="How the platform's services run.")
    code: Code | None = Field(default=None, description="The application's code.")
    database: Database = Field(description="The PostgreSQL database.")
    files: Files = Field(description="The file storage.")
    models: Models = Field(description="The AI models.")
    config: Config = Field(description="The configuration.")
    vault: Vault = Field(description="Where backups go.")
    keep: Keep = Field(default=Keep(), description="Intervals of a host without a Prefect server.")
    recovery: Recovery = Field(default=Recovery(), description="Time boxes of the ladder.")
    checks: dict[str, Any] = Field(
        default_factory=dict, description="What the eighteen checks call and expect."
    )

    _directory: Path = PrivateAttr(default=Path("."))

    @property
    def directory(self) -> Path:
        """The directory of lifeboat.yaml, to which its relative paths belong."""
        return self._directory

    def secret(self, name: str) -> str:
        """Give a secret. Raise SettingsError, saying where to set it, if there is none."""
        value = os.environ.get(name) or self._secrets_of_file().get(name)
        if not value:
            where = f" or in {self.secrets_file}" if self.secrets_file else ""
            raise SettingsError(
                f"Reading the secret {name}: it is not set.",
                hint=f"Set it in the environment{where}.",
            )
        return value

    def fill(self, text: str) -> str:
        """Replace each `${NAME}` by the secret of that name."""
        return _VARIABLE.sub(lambda match: self.secret(match[1]), text)

    def restic_program(self) -> Path:
        """Where restic is. Raise SettingsError if it is nowhere."""
        if self.vault.restic_program:
            return self.vault.restic_program
        for folder in (Path.cwd(), self._directory):
            if (folder / TOOL_FOLDER / "restic").is_file():
                return folder / TOOL_FOLDER / "restic"
        found = shutil.which("restic")
        if not found:
            raise SettingsError(
                "Looking for restic: it is not on PATH.",
                hint="Run `make setup`, install restic >= 0.17, or set vault.restic_program.",
            )
        return Path(found)

    def _secrets_of_file(self) -> dict[str, str]:
        # Read at each use: secrets stay out of the object, and so out of pickles and records.
        path = self.secrets_file
        if path is None or not path.exists():
            return {}
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise SettingsError(
                f"Reading {path}: its mode {mode:04o} lets others read the secrets in it.",
                hint=f"Run `chmod 600 {path}`.",
            )
        pairs = (line.partition("=") for line in path.read_text().splitlines())
        return {
            name.strip(): value.strip().strip("'\"")
            for name, sign, value in pairs
            if sign and not name.lstrip().startswith("#")
        }


def load_settings(path: str | Path | None = None) -> Settings:
    """Read lifeboat.yaml: `path`, else LIFEBOAT_CONFIG, else ./lifeboat.yaml.

    Relative paths in it belong to its own directory. Raise SettingsError with all that is wrong.
    """
    chosen = Path(path or os.environ.get("LIFEBOAT_CONFIG") or DEFAULT_NAME).absolute()
    tree = _read_yaml(chosen)
    try:
        settings = Settings.model_validate(tree, strict=False)
    except ValidationError as error:
        lines = [_in_words(chosen, tree, detail) for detail in error.errors()]
        raise SettingsError(
            f"Reading {chosen.name}:\n  " + "\n  ".join(lines),
            hint="\nNothing was touched. Correct the file and run this again.",
        ) from error
    settings = _with_absolute_paths(settings, chosen.parent)
    settings._directory = chosen.parent
    _refuse_contradictions(settings, chosen)
    return settings


def _read_yaml(path: Path) -> CommentedMap:
    try:
        tree = YAML().load(path.read_text())
    except FileNotFoundError:
        raise SettingsError(
            f"Reading {path}: there is no such file.",
            hint="Name it with --config or LIFEBOAT_CONFIG.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Reading {path}: {error}.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SettingsError(
            f"Reading {path.name}: line {line}: {error.problem or 'not YAML'}.",
            hint="Correct the file and run this again.",
        ) from error
    except YAMLError as error:
        raise SettingsError(f"Reading {path.name}: {error}.") from error
    if not isinstance(tree, CommentedMap):
        raise SettingsError(f"Reading {path.name}: it holds no keys.", hint="See the README.")
    return tree


def _in_words(path: Path, tree: CommentedMap, detail: ErrorDetails) -> str:
    # The discriminated union puts the kind of the stack into the address.
    address = [step for step in detail["loc"] if step not in ("process", "compose")]
    key = ".".join(str(step) for step in address)
    message = "is missing" if detail["type"] == "missing" else detail["msg"].lower()
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(address[-1]), _known_keys(), n=1)
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{path.name}:{_line_of(tree, address)}: {key} {message}"


def _line_of(tree: CommentedMap, address: Iterable[str | int]) -> int:
    """The line of the last part of an address that the file has, counted from 1."""
    line, node = 1, tree
    for step in address:
        try:
            where = node.lc.key(step) if isinstance(node, CommentedMap) else node.lc.item(step)
            line, node = where[0] + 1, node[step]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
        if not isinstance(node, CommentedBase):
            break
    return line


def _known_keys() -> set[str]:
    keys: set[str] = set()
    pending: list[type[BaseModel]] = [Settings, ProcessStackSection, ComposeStackSection]
    while pending:
        for name, field in pending.pop().model_fields.items():
            keys.add(name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                pending.append(field.annotation)
    return keys


def _with_absolute_paths(model: Any, base: Path) -> Any:
    if isinstance(model, Path):
        return base / model
    if isinstance(model, BaseModel):
        names = type(model).model_fields
        return model.model_copy(
            update={name: _with_absolute_paths(getattr(model, name), base) for name in names}
        )
    if isinstance(model, Mapping):
        return {key: _with_absolute_paths(value, base) for key, value in model.items()}
    if isinstance(model, tuple):
        return tuple(_with_absolute_paths(item, base) for item in model)
    return model


def _refuse_contradictions(settings: Settings, path: Path) -> None:
    stack = settings.stack
    named = (*stack.critical_services, *stack.deferred_services, *stack.backup_services)
    wrong = [
        f"stack names the service {name!r} twice"
        for name in sorted({name for name in named if named.count(name) > 1})
    ]
    if settings.database.service not in stack.critical_services:
        wrong.append(
            f"database.service {settings.database.service!r} is not among stack.critical_services"
        )
    protected = {
        "database.data_directory": settings.database.data_directory,
        **{f"files.directories.{n}": p for n, p in settings.files.directories.items()},
        **{f"models.directories.{n}": p for n, p in settings.models.directories.items()},
    }
    for key, place in protected.items():
        if place == settings.vault.local or settings.vault.local in place.parents:
            wrong.append(f"{key} lies inside vault.local: a vault can't protect itself")
        if place in settings.vault.local.parents:
            wrong.append(f"vault.local lies inside {key}: it would be backed up into itself")
    if wrong:
        raise SettingsError(
            f"Reading {path.name}: " + "; ".join(wrong) + ".",
            hint="Correct the file and run this again.",
        )
