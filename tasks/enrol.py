"""Lifeboat's role in a running database: made from inside, where the superuser needs no password.

Only what is missing is done, and everything that was done is told. The platform's database gets a
role, at most two lines in pg_hba.conf and a replication slot; no tool, no mount and no restart.
"""

from __future__ import annotations

import logging

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import CommandFailed, PermanentError, PreconditionError, RecoveryError
from lifeboat.settings import ComposeStackSettings, Settings
from lifeboat.tools import postgres
from tasks import programs
from tasks.database import SLOT, connection
from tasks.orchestration import step
from tasks.services import stack_of

log = logging.getLogger("lifeboat")

_MEMBER_OF = ("pg_read_all_data", "pg_monitor", "pg_checkpoint")
_FUNCTIONS = ("pg_switch_wal()", "pg_create_restore_point(text)", "pg_reload_conf()")
_ADDRESS = "samenet"  # the networks that the server itself is in: a container's gateway among them


# Which port the server has inside is its own affair: its socket tells, and there is one of them.
_FIND_SOCKET = """
for place in /var/run/postgresql /tmp; do
  for socket in "$place"/.s.PGSQL.*; do
    if [ -S "$socket" ] && [ -z "${PGPORT:-}" ]; then
      export PGHOST="$place" PGPORT="${socket##*.}"
    fi
  done
done
exec "$@"
"""


class Enrolment(BaseModel):
    """What was changed in the database, in words; empty: everything was there."""

    model_config = ConfigDict(frozen=True)

    changed: tuple[str, ...]
    advice: tuple[str, ...] = ()
    dry_run: bool = False


class _Inside:
    """The database's superuser, by psql where the server runs."""

    def __init__(self, settings: Settings, superuser: str) -> None:
        self._stack = stack_of(settings)
        self._service = settings.database.service
        if isinstance(settings.stack, ComposeStackSettings):
            self._words = ["sh", "-c", _FIND_SOCKET, "sh"]
        else:
            self._words = ["env", f"PGPORT={settings.database.port}"]
        self._words += ["psql", "--no-psqlrc", "--username", superuser]
        self._words += ["--dbname", settings.database.name, "--set", "ON_ERROR_STOP=1"]
        self._words += ["--tuples-only", "--no-align", "--quiet"]

    def ask(self, text: str) -> str:
        """Run SQL and give what it printed. By standard input: a command line can be read."""
        try:
            return self._stack.run_in(self._service, self._words, input=text.encode()).strip()
        except CommandFailed as error:
            raise PreconditionError(
                f"Asking the database as its superuser inside of {self._service}: "
                f"{error.stderr_tail.strip()}",
                hint="Name the superuser with --superuser; it must be let in without a password "
                "there, as it is in PostgreSQL's own images.",
            ) from error

    def append(self, path: str, line: str) -> None:
        """Add a line to a file where the server runs, whose last one may lack its end."""
        script = '[ -z "$(tail -c 1 "$1")" ] || echo >> "$1"; cat >> "$1"'
        words = ["sh", "-c", script, "sh", path]
        self._stack.run_in(self._service, words, input=f"{line}\n".encode())


@step()
def enrol_role(settings: Settings, superuser: str, *, dry_run: bool = False) -> Enrolment:
    """Make the role that backs the database up, let it in, and give it a slot.

    Raises PreconditionError, with nothing changed, if the superuser is not let in from inside or
    PostgreSQL is too old; PermanentError, naming what was changed, if the role is not let in after
    all.
    """
    inside = _Inside(settings, superuser)
    _require_version(inside)
    changed = _statements(settings, inside)
    if not dry_run:
        for text, _ in changed:
            inside.ask(text)
    told = [words for _, words in changed]
    for line in _missing_lines(settings, inside):
        told.append(f"pg_hba.conf: {line}")
        if not dry_run:
            inside.append(inside.ask("SHOW hba_file"), line)
            inside.ask("SELECT pg_reload_conf()")
    if not dry_run:
        try:
            _require_let_in(settings)
            told += _slot(settings)
        except RecoveryError as error:
            raise PermanentError(
                f"Reaching the database as {settings.database.user}: {error.message} "
                f"Changed so far: {'; '.join(told) or 'nothing'}.",
                hint="An earlier line of pg_hba.conf may forbid it; the first that fits counts.",
            ) from error
    for words in told:
        log.info("%s%s", "Would change: " if dry_run else "Changed: ", words)
    return Enrolment(changed=tuple(told), advice=_advice(inside), dry_run=dry_run)


def bring_programs(settings: Settings) -> str:
    """PostgreSQL's programs of the server's version, where they come out of its image."""
    return programs.bring_programs(settings)


def _require_version(inside: _Inside) -> None:
    number = int(inside.ask("SHOW server_version_num"))
    if number < 150000:
        raise PreconditionError(
            f"Enrolling in PostgreSQL {number // 10000}: 15 or newer is needed.",
            hint="Nothing was changed. Upgrade the database.",
        )


def _statements(settings: Settings, inside: _Inside) -> list[tuple[str, str]]:
    """The SQL that is still to be run, each with what it does in words."""
    role = settings.database.user
    name, literal = postgres.identifier(role), postgres.literal(role)
    verifier = postgres.literal(
        postgres.password_verifier(role, settings.secret("LIFEBOAT_DATABASE_PASSWORD"))
    )
    found: list[tuple[str, str]] = []
    there = inside.ask(
        f"SELECT rolreplication, rolcanlogin FROM pg_roles WHERE rolname = {literal}"
    )
    if not there:
        make = f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD {verifier}"
        found.append((make, f"role {role}, with LOGIN and REPLICATION"))
    else:
        if there != "t|t":
            found.append(
                (f"ALTER ROLE {name} LOGIN REPLICATION", f"role {role}: LOGIN, REPLICATION")
            )
        if not _let_in(settings):
            change = f"ALTER ROLE {name} PASSWORD {verifier}"
            found.append((change, f"role {role}: the password of lifeboat.yaml"))
    for group in _MEMBER_OF:
        member = f"SELECT pg_has_role({literal}, {postgres.literal(group)}, 'USAGE')"
        if not there or inside.ask(member) != "t":
            found.append((f"GRANT {group} TO {name}", f"{role} is a member of {group}"))
    for function in _FUNCTIONS:
        may = f"SELECT has_function_privilege({literal}, '{function}', 'EXECUTE')"
        if not there or inside.ask(may) != "t":
            grant = f"GRANT EXECUTE ON FUNCTION {function} TO {name}"
            found.append((grant, f"{role} may call {function}"))
    parameter = "synchronous_standby_names"
    may = f"SELECT has_parameter_privilege({literal}, '{parameter}', 'ALTER SYSTEM')"
    if not there or inside.ask(may) != "t":
        grant = f"GRANT ALTER SYSTEM ON PARAMETER {parameter} TO {name}"
        found.append((grant, f"{role} may set {parameter}, to switch synchronous WAL on and off"))
    if inside.ask("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'"):
        function = "bt_index_check(regclass)"
        may = f"SELECT has_function_privilege({literal}, '{function}', 'EXECUTE')"
        if not there or inside.ask(may) != "t":
            grant = f"GRANT EXECUTE ON FUNCTION {function} TO {name}"
            found.append((grant, f"{role} may check indexes"))
    return found


def _let_in(settings: Settings) -> bool:
    return postgres.answers(connection(settings))


def _missing_lines(settings: Settings, inside: _Inside) -> list[str]:
    """The lines of pg_hba.conf that the role still needs: no rule that fits lets it in."""
    role = settings.database.user
    rules = inside.ask(
        "SELECT array_to_string(database, ','), array_to_string(user_name, ','), address"
        " FROM pg_hba_file_rules WHERE type LIKE 'host%' AND error IS NULL"
        " AND auth_method <> 'reject'"
    ).splitlines()
    known = [rule.split("|") for rule in rules]
    here = ("127.0.0.1", "::1")

    def fits(database: str) -> bool:
        return any(
            (database in databases.split(",") or (database != "replication" and databases == "all"))
            and ({role, "all"} & set(users.split(",")))
            and address not in here
            for databases, users, address in known
        )

    return [
        f"host {database} {role} {_ADDRESS} scram-sha-256"
        for database in ("all", "replication")
        if not fits(database)
    ]


def _require_let_in(settings: Settings) -> None:
    server = connection(settings)
    postgres.query(server, "SELECT 1")
    postgres.require_replication(server)


def _slot(settings: Settings) -> list[str]:
    server = connection(settings)
    if postgres.slot_restart_lsn(server, SLOT) is not None:
        return []
    postgres.ensure_slot(server, SLOT)
    return [f"replication slot {SLOT}: WAL is kept until the receiver has it"]


def _advice(inside: _Inside) -> tuple[str, ...]:
    """What only the platform's owner should change, because it needs a restart or a decision."""
    advice = []
    if inside.ask("SHOW wal_level") == "minimal":
        advice.append("wal_level is minimal: set it to replica and restart PostgreSQL.")
    if inside.ask("SHOW max_slot_wal_keep_size") == "-1":
        advice.append(
            "max_slot_wal_keep_size has no limit: a dead receiver would fill the disk. Set it to "
            "what the disk can spare, e.g. 10GB."
        )
    if inside.ask("SHOW data_checksums") == "off":
        advice.append("Data checksums are off: damaged blocks are found by reading rows alone.")
    return tuple(advice)
