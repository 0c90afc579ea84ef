"""What the eighteen checks call and what they expect: the `checks:` section of lifeboat.yaml.

Models only. A platform with other paths, bodies or tables needs another section, and no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lifeboat.core.checks import CHECK_NAMES

PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""`${NAME}` in a URL, header or body: saved by an earlier answer, or a secret, filled at use."""

RANDOM = "random"
UPLOADED_SHA256 = "uploaded_sha256"
_FILLED_BY_THE_CLIENT = frozenset({RANDOM, UPLOADED_SHA256})

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


# --- requests -------------------------------------------------------------------------------


class Expect(_Section):
    """What an answer must be like. All that is given must hold."""

    status: tuple[int, ...] = Field(
        default=(200,), min_length=1, description="HTTP status, or a list of those that are good."
    )
    equals: Mapping[str, Any] = Field(
        default={},
        description="Values in the JSON answer, by path: `{models.0.id: default}`. "
        "`${NAME}` is filled.",
    )
    at_least: Mapping[str, float] = Field(
        default={},
        description="Least numbers in the JSON answer, by path; of a list or text its length.",
    )
    contains: tuple[str, ...] = Field(
        default=(), description="Text, or texts, that the body must hold. `${NAME}` is filled."
    )
    sha256: str = Field(
        default="",
        description="SHA-256 of the whole body; `${uploaded_sha256}` is that of the last upload.",
    )

    @field_validator("status", "contains", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else (value,)


class Upload(_Section):
    """A file sent as multipart/form-data."""

    field: str = Field(default="file", description="Name of the form's field.")
    filename: str = Field(
        default="lifeboat-check-${random}.bin", description="Name of the file. `${NAME}` is filled."
    )
    content: str = Field(
        default="",
        description="The file as text, where only certain formats are taken; `${random}` makes it "
        "one that was never seen. Empty: random bytes.",
    )
    bytes: int = Field(
        default=65536, ge=1, description="How many random bytes, where `content` is empty."
    )


class Request(_Section):
    """One HTTP request and what its answer must be like."""

    method: Method = Field(default="GET", description="HTTP method.")
    url: str = Field(
        min_length=1, description="URL, or a path below `checks.base_url`. `${NAME}` is filled."
    )
    headers: Mapping[str, str] = Field(default={}, description="Headers. `${NAME}` is filled.")
    json_body: Any = Field(
        default=None, alias="json", description="Body, sent as JSON. `${NAME}` in texts is filled."
    )
    form: Mapping[str, str] | None = Field(
        default=None, description="Body, sent as a form. `${NAME}` is filled."
    )
    upload: Upload | None = Field(default=None, description="A file to upload.")
    expect: Expect = Field(default=Expect(), description="What the answer must be like.")
    save: Mapping[str, str] = Field(
        default={},
        description="Values to keep for later requests: name to path in the JSON answer, "
        "`{token: access_token}`.",
    )

    @model_validator(mode="after")
    def _one_body(self) -> Request:
        if self.json_body is not None and (self.form is not None or self.upload is not None):
            raise ValueError("a request has either `json`, or `form` and `upload`")
        return self

    @property
    def placeholders(self) -> frozenset[str]:
        """The names in `${NAME}` anywhere in the request."""
        told = (self.url, self.headers, self.json_body, self.form, self.expect.equals)
        upload = (self.upload.filename, self.upload.content) if self.upload else ()
        texts = _texts((*told, *upload, self.expect.contains, self.expect.sha256))
        return frozenset(name for text in texts for name in PLACEHOLDER.findall(text))


def unsaved_placeholders(requests: tuple[Request, ...]) -> frozenset[str]:
    """The names that no earlier answer fills, so that a secret must."""
    known: set[str] = set(_FILLED_BY_THE_CLIENT)
    wanted: set[str] = set()
    for request in requests:
        wanted |= request.placeholders - known
        known |= set(request.save)
    return frozenset(wanted)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


class Session(_Section):
    """How to log in, and what later requests carry to show it."""

    login: Request = Field(
        description="The request that logs in; it should `save` a token. Its password is a "
        "`${NAME}`, so that the check of authentication can also try a wrong one."
    )
    headers: Mapping[str, str] = Field(
        default={"Authorization": "Bearer ${token}"},
        description="Headers of every request of this session. `${NAME}` is filled.",
    )


# --- the checks -----------------------------------------------------------------------------


class Requests(_Section):
    """A check that sends requests, one after another."""

    session: str = Field(
        default="", description="Name of the session of `checks.sessions` to log in with first."
    )
    requests: tuple[Request, ...] = Field(
        min_length=1, description="Requests, in order; all answers must be as expected."
    )


class ContainersRunning(_Section):
    deferred: Literal["report", "require"] = Field(
        default="report",
        description="Whether a deferred service that does not run is only told of, or a failure.",
    )
    settle_seconds: float = Field(
        default=1.0,
        ge=0,
        le=30,
        description="Time between two looks; a service with another process at the second look, "
        "or younger than this, restarts in a loop.",
    )


class Authentication(Requests):
    """Log in, use the token, and be refused with a wrong password."""

    session: str = Field(min_length=1, description="Name of the session to log in with.")
    refused_with: tuple[int, ...] = Field(
        default=(400, 401, 403, 422, 429),
        min_length=1,
        description="Statuses with which a wrong password may be refused.",
    )


class RoundTrip(Requests):
    """Upload, download, compare; then remove."""

    clean_up: tuple[Request, ...] = Field(
        default=(), description="Requests that remove what was uploaded; sent also after a failure."
    )


class AdminDashboard(Requests):
    session: str = Field(min_length=1, description="Name of the administrator's session.")
    refused_with: tuple[int, ...] = Field(
        default=(302, 303, 307, 401, 403, 404),
        min_length=1,
        description="Statuses with which who is not logged in may be refused.",
    )


class DatabaseConnections(_Section):
    max_used_percent: float = Field(
        default=95, gt=0, le=100, description="Connections in use, of `max_connections`."
    )


class RedisReachable(_Section):
    host: str = Field(default="127.0.0.1", description="Host of Redis.")
    port: int = Field(default=6379, ge=1, le=65535, description="Port of Redis.")
    database: int = Field(default=0, ge=0, description="Number of the database.")
    user: str = Field(default="", description="Name of the user; empty: the default user.")
    password: str = Field(
        default="", description="`${REDIS_PASSWORD}`, or empty where none is asked for."
    )
    tls: bool = Field(default=False, description="Whether to use TLS.")


class AtLeast(_Section):
    at_least: int = Field(ge=0, description="Least number of rows.")


class TablesComplete(_Section):
    tables: Mapping[str, AtLeast] = Field(
        default={},
        description="Expectations besides those of the newest recovery point: "
        "`{users: {at_least: 1}}`; a name without a schema lies in `public`.",
    )
    tolerance_percent: float = Field(
        default=0, ge=0, lt=100, description="How much smaller a table may be than it was."
    )


class FileCounts(_Section):
    tolerance_percent: float = Field(
        default=0, ge=0, lt=100, description="How many fewer files there may be than there were."
    )


class ModelsLoadable(_Section):
    session: str = Field(default="", description="Name of the session to log in with first.")
    request: Request = Field(description="The request that lists the models and their state.")
    list_at: str = Field(
        default="models", description="JSON path of the list in the answer; empty: the answer."
    )
    name_at: str = Field(default="id", description="Path of a model's name in its entry.")
    loaded_at: str = Field(
        default="loaded", description="Path of a truth value in its entry; empty: listed is loaded."
    )
    expected: tuple[str, ...] = Field(
        default=(),
        description="Models that must be loaded. Empty: those of the newest recovery point, by the "
        "names of their files without suffix.",
    )


class UserDataIntact(_Section):
    sample_files: int = Field(
        default=200,
        ge=0,
        description="How many files of `files.manifest_query` are read and compared with their "
        "SHA-256, the last rows always among them. 0: every file.",
    )
    must_be_empty: Mapping[str, str] = Field(
        default={},
        description="Rules of the platform's own: name to a query that gives a row for each "
        "violation.",
    )


class ResponseTimes(_Section):
    session: str = Field(default="", description="Name of the session to log in with first.")
    requests: tuple[Request, ...] = Field(min_length=1, description="Requests to time.")
    times: int = Field(default=10, ge=2, le=1000, description="How often each one is sent.")
    p95_seconds: float = Field(
        default=1.0, gt=0, description="95 of 100 answers must come within this time."
    )


class MemoryStable(_Section):
    growth_percent: float = Field(
        default=20, gt=0, description="A service that grows by more during the window, ..."
    )
    growth_bytes: int = Field(
        default=64 << 20, ge=0, description="... and by more than this, and goes on, has a leak."
    )
    available_percent: float = Field(
        default=5, ge=0, lt=100, description="Memory of the host that must be available."
    )


class CpuNormal(_Section):
    service_percent: float = Field(
        default=45,
        gt=0,
        le=100,
        description="A service that uses more than this of all cores without a pause runs away. "
        "A busy one pauses.",
    )


class DiskSpace(_Section):
    free_percent: float = Field(
        default=10, ge=0, lt=100, description="Least free space of each file system, in percent."
    )
    free_bytes: int = Field(
        default=1 << 30, ge=0, description="Least free space of each file system, in bytes."
    )


class Checks(_Section):
    """What verify-recovery calls, expects and allows."""

    base_url: str = Field(
        default="",
        pattern=r"^(|https?://[^\s]+)$",
        description="What a request's URL is below, unless it is a whole one.",
    )
    timeout_seconds: float = Field(
        default=10, gt=0, le=600, description="How long one check may take; then it is UNKNOWN."
    )
    full_read_seconds: float = Field(
        default=300,
        gt=0,
        description="How long tables-complete, file-counts and user-data-intact may take, which "
        "read in full what there is.",
    )
    timeouts: Mapping[str, float] = Field(
        default={}, description="Other time-outs, by the name of the check, in seconds."
    )
    window_seconds: float = Field(
        default=3, ge=0.5, le=60, description="How long CPU and memory are watched."
    )
    start_seconds: float = Field(
        default=20,
        ge=0,
        description="Services that were started less than this ago are given until then to answer "
        "before they are judged.",
    )
    healthy_seconds: float = Field(
        default=300,
        ge=0,
        le=3600,
        description="How long after its start a service may go on starting, as its own health "
        "check says, before it is judged; Docker probes for the first time after 30 s. One that "
        "ends or is unhealthy ends the wait.",
    )
    without: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(
        default={},
        description="Checks of what this platform has not got, each with the reason: "
        '`{redis-reachable: "there is no Redis"}`. Only those that have no default.',
    )
    sessions: Mapping[str, Session] = Field(
        default={}, description="Ways to log in, by a name of your choice."
    )
    containers_running: ContainersRunning = Field(
        default=ContainersRunning(), description="All containers are running."
    )
    health_endpoints: Requests | None = Field(
        default=None, description="Health check endpoints return 200. Without it: UNKNOWN."
    )
    database_connections: DatabaseConnections = Field(
        default=DatabaseConnections(), description="Database connections are working."
    )
    redis_reachable: RedisReachable | None = Field(
        default=None, description="Redis cache is accessible. Without it: UNKNOWN."
    )
    authentication: Authentication | None = Field(
        default=None, description="User authentication works. Without it: UNKNOWN."
    )
    file_round_trip: RoundTrip | None = Field(
        default=None, description="File upload and download work. Without it: UNKNOWN."
    )
    search: Requests | None = Field(
        default=None, description="Search functionality works. Without it: UNKNOWN."
    )
    ai_inference: Requests | None = Field(
        default=None, description="AI inference works. Without it: UNKNOWN."
    )
    admin_dashboard: AdminDashboard | None = Field(
        default=None, description="Admin dashboard is accessible. Without it: UNKNOWN."
    )
    tables_complete: TablesComplete = Field(
        default=TablesComplete(), description="Database tables are complete."
    )
    file_counts: FileCounts = Field(
        default=FileCounts(), description="File counts match expected values."
    )
    models_loadable: ModelsLoadable | None = Field(
        default=None, description="AI models are loadable. Without it: UNKNOWN."
    )
    user_data_intact: UserDataIntact = Field(
        default=UserDataIntact(), description="User data is intact."
    )
    response_times: ResponseTimes | None = Field(
        default=None, description="Response times are acceptable. Without it: UNKNOWN."
    )
    memory_stable: MemoryStable = Field(
        default=MemoryStable(), description="No memory leaks detected."
    )
    cpu_normal: CpuNormal = Field(default=CpuNormal(), description="CPU usage is normal.")
    disk_space: DiskSpace = Field(default=DiskSpace(), description="Disk space is sufficient.")

    @property
    def undeclared(self) -> tuple[str, ...]:
        """The checks that can't be answered, and are not done without: no recovery passes them."""
        asked = (name for name in self._optional() if name not in self.without)
        return tuple(name for name in asked if getattr(self, _key(name)) is None)

    @classmethod
    def _optional(cls) -> tuple[str, ...]:
        fields = cls.model_fields
        return tuple(
            name
            for name in CHECK_NAMES
            if _key(name) in fields and fields[_key(name)].default is None
        )

    @model_validator(mode="after")
    def _nothing_to_look_at(self) -> Checks:
        optional = self._optional()
        for name in self.without:
            if name not in optional:
                raise ValueError(
                    f"no platform is without {name}; without can be: {', '.join(optional)}"
                )
            if getattr(self, _key(name)) is not None:
                raise ValueError(f"{name} is in `without`, and {_key(name)} is set: remove one")
        return self

    @field_validator("timeouts")
    @classmethod
    def _names_of_checks(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        unknown = [name for name in value if name not in CHECK_NAMES]
        if unknown:
            raise ValueError(
                f"no check is named {', '.join(unknown)}; they are {', '.join(CHECK_NAMES)}"
            )
        return value


def _key(check: str) -> str:
    """The section of a check."""
    return check.replace("-", "_")
