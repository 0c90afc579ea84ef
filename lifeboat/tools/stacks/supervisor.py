"""Services as plain processes under supervisor (https://supervisord.org/api.html)."""

from __future__ import annotations

import base64
import configparser
import contextlib
import http.client
import os
import re
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError
from lifeboat.tools import process
from lifeboat.tools.stacks import trees
from lifeboat.tools.stacks.protocol import ServiceState, ServiceStatus, raise_for

START_SECONDS = 30.0
RPC_SECONDS = 10.0
POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0


_STATES = {
    "STOPPED": ServiceState.STOPPED,
    "STARTING": ServiceState.STARTING,
    "RUNNING": ServiceState.RUNNING,
    "BACKOFF": ServiceState.STARTING,
    # It is there until it has gone: a restore must not begin beside it.
    "STOPPING": ServiceState.RUNNING,
    "EXITED": ServiceState.FAILED,
    "FATAL": ServiceState.FAILED,
    "UNKNOWN": ServiceState.FAILED,
}

# https://supervisord.org/api.html, supervisor.xmlrpc.Faults
_SHUTDOWN_STATE = 6
_ALREADY_STARTED = 60
_NOT_RUNNING = 70

_CONFIG_VARIABLE = "LIFEBOAT_SUPERVISOR_CONFIG"
"""Inherited by every service, so that those of a killed supervisord can be told from others."""


@dataclass(frozen=True)
class _Program:
    """A [program:x] section, as far as we need it."""

    name: str
    directory: Path
    log_path: Path | None
    stop_wait_seconds: float
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class _Supervisor:
    """What the configuration file says of supervisord itself and of its programs."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    pid_path: Path
    log_path: Path
    programs: tuple[_Program, ...]


class ProcessStack:
    """Services as plain processes under supervisor.

    The configuration file is the stack's definition: it needs an `[inet_http_server]` on a
    numeric port (a socket's path may have 107 characters only), a `pidfile` and one `[program:x]`
    a service, outside of groups. Programs with `autostart=true` start whenever supervisord does,
    whatever `up` was asked for; a stack under Lifeboat's care has `autostart=false`.

    supervisord is run by this Python, which comes first on its programs' PATH.
    """

    def __init__(self, supervisor_config: Path) -> None:
        self._config_path = Path(supervisor_config).absolute()

    def status(self) -> tuple[ServiceStatus, ...]:
        supervisor = self._read_config()
        try:
            infos = self._infos(supervisor)
        except TransientError:
            orphans = self._orphans(supervisor)
            return tuple(
                _orphaned(p.name, orphans[p.name])
                if p.name in orphans
                else _stopped(p.name, "supervisord is not running")
                for p in supervisor.programs
            )
        return tuple(
            _status_of(infos[program.name])
            if program.name in infos
            else _stopped(program.name, "not known to the running supervisord")
            for program in supervisor.programs
        )

    def logs(self, service: str, lines: int = 50) -> str:
        # Read from the file: it is there when supervisord is not.
        program = self._programs(self._read_config(), [service])[0]
        if program.log_path is None or not program.log_path.exists():
            return ""
        return _tail(program.log_path, lines)

    def start(self, services: Collection[str]) -> None:
        supervisor = self._read_config()
        programs = self._programs(supervisor, services)
        failed: dict[str, str] = {}
        for program in programs:
            try:
                self._call(
                    supervisor,
                    lambda rpc, name=program.name: rpc.startProcess(name, False),
                    accept=(_ALREADY_STARTED,),
                )
            except RecoveryError as error:
                failed[program.name] = error.message
        waiting = [program for program in programs if program.name not in failed]
        failed |= self._wait_for_running(supervisor, waiting)
        raise_for(failed, "Starting")

    def stop(self, services: Collection[str]) -> None:
        supervisor = self._read_config()
        programs = self._programs(supervisor, services)
        try:
            infos = self._infos(supervisor)
        except TransientError:
            if self._pid(supervisor) is None:
                self._end_orphans(supervisor, [program.name for program in programs])
                return
            raise
        families = {
            program.name: trees.members(infos.get(program.name, {}).get("pid", 0))
            for program in programs
        }
        failed: dict[str, str] = {}
        for program in programs:
            try:
                self._call(
                    supervisor,
                    lambda rpc, name=program.name: rpc.stopProcess(name, False),
                    accept=(_NOT_RUNNING,),
                )
            except RecoveryError as error:
                failed[program.name] = error.message
        for program in programs:
            if program.name not in failed and not self._stopped_within(
                supervisor, program.name, program.stop_wait_seconds + GRACE_SECONDS
            ):
                failed[program.name] = "it is still there after being killed"
            # Supervisor knows the parent alone; a child that outlived it would go on writing.
            left = trees.kill(families[program.name])
            if left:
                failed[program.name] = f"processes {left} cannot be ended"
        raise_for(failed, "Stopping")

    def restart(self, services: Collection[str]) -> None:
        self.stop(services)
        self.start(services)

    def up(self, services: Collection[str] | None = None) -> None:
        supervisor = self._read_config()
        names = [p.name for p in supervisor.programs] if services is None else services
        self._programs(supervisor, names)
        if not self._answers(supervisor):
            self._start_supervisord(supervisor)
        self.start(names)

    def down(self) -> None:
        supervisor = self._read_config()
        pid = self._pid(supervisor)
        if pid is None:
            self._end_orphans(supervisor, [program.name for program in supervisor.programs])
            return
        family = trees.members(pid)
        patience = (
            max((p.stop_wait_seconds for p in supervisor.programs), default=0) + GRACE_SECONDS
        )
        try:
            self._call(supervisor, lambda rpc: rpc.shutdown(), accept=(_SHUTDOWN_STATE,))
        except TransientError:
            patience = 0  # it does not listen
        psutil.wait_procs([p for p in family if p.pid == pid], timeout=patience)
        left = trees.kill(family)
        if left:
            raise PermanentError(
                f"Stopping the stack: processes {left} cannot be ended.",
                hint="Look for processes that hang in the kernel (state D).",
            )

    def run_in(
        self,
        service: str,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_seconds: float = 60.0,
    ) -> str:
        program = self._programs(self._read_config(), [service])[0]
        finished = process.run(
            argv,
            doing=f"Running {argv[0]} beside {service}",
            cwd=program.directory,
            env={"PATH": _path(), **program.environment},
            timeout_seconds=timeout_seconds,
            input=input,
        )
        return finished.stdout.decode(errors="replace")

    def strangers_at(self, path: Path) -> tuple[str, ...]:
        """Nobody is known: a process may open any directory."""
        return ()

    def prepare(self, services: Collection[str] | None = None) -> None:
        """Processes need nothing but their programs."""
        supervisor = self._read_config()
        self._programs(supervisor, services or ())

    # -- supervisord itself

    def _start_supervisord(self, supervisor: _Supervisor) -> None:
        if self._pid(supervisor) is not None:
            # It runs and does not answer; two of them would start every service twice.
            self.down()
        self._end_orphans(supervisor, [program.name for program in supervisor.programs])
        for directory in (supervisor.pid_path.parent, supervisor.log_path.parent):
            directory.mkdir(parents=True, exist_ok=True)
        for program in supervisor.programs:
            if program.log_path:
                program.log_path.parent.mkdir(parents=True, exist_ok=True)
        output = supervisor.log_path.with_suffix(".out")
        daemon = process.start(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", self._config_path],
            doing="Starting supervisord",
            env={"PATH": _path(), _CONFIG_VARIABLE: str(self._config_path)},
            log_path=output,
            cwd=self._config_path.parent,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._answers(supervisor):
                return
            if not daemon.alive:
                break
            time.sleep(POLL_SECONDS)
        daemon.stop()
        raise PermanentError(
            f"Starting supervisord with {self._config_path}: it does not answer on "
            f"{supervisor.host}:{supervisor.port}. It said: {_tail(output, 10).strip()}",
            hint="Is the port taken, or the configuration wrong?",
        )

    def _answers(self, supervisor: _Supervisor) -> bool:
        try:
            state = self._call(supervisor, lambda rpc: rpc.getState())
        except TransientError:
            return False
        return state["statename"] == "RUNNING"

    def _pid(self, supervisor: _Supervisor) -> int | None:
        """The running supervisord of this configuration, even if it does not answer."""
        try:
            pid = int(supervisor.pid_path.read_text())
            words = psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        # A pid file that came out of a backup names somebody else's process.
        return pid if str(self._config_path) in words else None

    def _orphans(self, supervisor: _Supervisor) -> dict[str, psutil.Process]:
        """The services that a killed supervisord left behind, by name."""
        found = {}
        for candidate in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = candidate.environ()
                name = environment.get("SUPERVISOR_PROCESS_NAME", "")
                url = environment.get("SUPERVISOR_SERVER_URL", "")
                here = environment.get(_CONFIG_VARIABLE) == str(self._config_path)
                # The oldest one is the service; others that carry the name are its children.
                if not here or not name or not url.endswith(f":{supervisor.port}"):
                    continue
                # The oldest one is the service; others that carry the name are its children.
                if name not in found or candidate.create_time() < found[name].create_time():
                    found[name] = candidate
        return found

    def _end_orphans(self, supervisor: _Supervisor, names: Collection[str]) -> None:
        orphans = self._orphans(supervisor)
        members = [m for name in names if name in orphans for m in trees.members(orphans[name].pid)]
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        psutil.wait_procs(members, timeout=GRACE_SECONDS)
        left = trees.kill(members)
        if left:
            raise PermanentError(
                f"Ending services that a killed supervisord left behind: {left} stay.",
                hint="Look for processes that hang in the kernel (state D).",
            )

    # -- the wire

    def _infos(self, supervisor: _Supervisor) -> dict[str, dict]:
        return {
            info["name"]: info
            for info in self._call(supervisor, lambda rpc: rpc.getAllProcessInfo())
        }

    def _call(
        self,
        supervisor: _Supervisor,
        act: Callable[[xmlrpc.client.ServerProxy], object],
        *,
        accept: Collection[int] = (),
    ):
        proxy = xmlrpc.client.ServerProxy(
            f"http://{supervisor.host}:{supervisor.port}/RPC2",
            transport=_Transport(supervisor.user, supervisor.password),
        )
        try:
            with proxy as rpc:
                return act(rpc.supervisor)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in accept:
                return None
            if fault.faultCode == _SHUTDOWN_STATE:
                raise TransientError("supervisord is shutting down.", hint="Try again.") from fault
            raise PermanentError(f"supervisord refused: {fault.faultString}.") from fault
        except xmlrpc.client.ProtocolError as error:
            if error.errcode == 401:
                raise PermanentError(
                    f"supervisord on port {supervisor.port} does not take the password of "
                    f"{self._config_path}.",
                    hint="Another stack may be listening there, or the file changed since it "
                    "started: stop that supervisord.",
                ) from error
            raise TransientError(f"supervisord answered {error.errcode} {error.errmsg}.") from error
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(
                f"supervisord does not answer on {supervisor.host}:{supervisor.port}: {error}.",
                hint="`lifeboat stack up` starts it.",
            ) from error

    # -- waiting

    def _wait_for_running(
        self, supervisor: _Supervisor, programs: Sequence[_Program]
    ) -> dict[str, str]:
        """Given programs that were started, return those that do not run, and why."""
        failed: dict[str, str] = {}
        waiting = {program.name for program in programs}
        for _ in _until(time.monotonic() + START_SECONDS):
            infos = self._infos(supervisor) if waiting else {}
            for name in sorted(waiting):
                state = infos[name]["statename"]
                if state in ("STARTING", "BACKOFF"):
                    continue
                waiting.discard(name)
                if state != "RUNNING":
                    failed[name] = self._why(infos[name])
            if not waiting:
                return failed
        infos = self._infos(supervisor)
        return failed | {name: self._why(infos[name]) for name in waiting}

    def _stopped_within(self, supervisor: _Supervisor, name: str, seconds: float) -> bool:
        for _ in _until(time.monotonic() + seconds):
            info = self._infos(supervisor).get(name)
            if info is None or info["statename"] in ("STOPPED", "EXITED", "FATAL"):
                return True
        return False

    def _why(self, info: Mapping) -> str:
        reason = info["spawnerr"] or info["description"] or info["statename"].lower()
        last = self.logs(info["name"], lines=3).strip()
        return f"{reason}; its log ends: {last}" if last else reason

    # -- the configuration file

    def _programs(self, supervisor: _Supervisor, names: Collection[str]) -> list[_Program]:
        known = {program.name: program for program in supervisor.programs}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise PreconditionError(
                f"{self._config_path} has no service {', '.join(unknown)}.",
                hint=f"It has: {', '.join(known)}.",
            )
        return [known[name] for name in names]

    def _read_config(self) -> _Supervisor:
        parser = configparser.RawConfigParser(
            inline_comment_prefixes=(" ;", "\t;"), strict=False, delimiters=("=",)
        )
        try:
            with self._config_path.open(encoding="utf-8") as file:
                parser.read_file(file)
            return self._parse(parser)
        except FileNotFoundError as error:
            raise PreconditionError(
                f"There is no supervisor configuration {self._config_path}.",
                hint="Restore the configuration first, or correct stack.supervisor_config.",
            ) from error
        except (OSError, configparser.Error, KeyError, ValueError) as error:
            raise PreconditionError(
                f"Reading {self._config_path}: {type(error).__name__} {error}.",
                hint="It needs [supervisord] pidfile and logfile, [inet_http_server] port and "
                "one [program:NAME] a service.",
            ) from error

    def _parse(self, parser: configparser.RawConfigParser) -> _Supervisor:
        server, daemon = parser["inet_http_server"], parser["supervisord"]
        host, _, port = self._expand(server["port"]).rpartition(":")
        base = Path(self._expand(daemon.get("directory", "%(here)s")))
        shared = _pairs(self._expand(daemon.get("environment", "")))
        programs = []
        for section in parser.sections():
            if not section.startswith("program:"):
                continue
            name = section.removeprefix("program:")
            values = {k: self._expand(v, program_name=name) for k, v in parser[section].items()}
            log_path = values.get("stdout_logfile")
            programs.append(
                _Program(
                    name=name,
                    directory=Path(values.get("directory", base)),
                    log_path=Path(log_path) if log_path not in (None, "AUTO", "NONE") else None,
                    stop_wait_seconds=float(values.get("stopwaitsecs", 10)),
                    environment=shared | _pairs(values.get("environment", "")),
                )
            )
        return _Supervisor(
            host=host if host not in ("", "*") else "127.0.0.1",
            port=int(port),
            user=self._expand(server.get("username", "")),
            password=self._expand(server.get("password", "")),
            pid_path=base / self._expand(daemon["pidfile"]),
            log_path=base / self._expand(daemon["logfile"]),
            programs=tuple(programs),
        )

    def _expand(self, text: str, **names: str) -> str:
        """Expand %(here)s, %(program_name)s and %(ENV_X)s as supervisor does."""
        known = {"here": str(self._config_path.parent), **names}
        known |= {f"ENV_{name}": value for name, value in process.environment().items()}
        return re.sub(r"%\((\w+)\)s", lambda m: known[m[1]], text).replace("%%", "%")


class _Transport(xmlrpc.client.Transport):
    """Basic authentication out of the URL's sight, and a time-out."""

    def __init__(self, user: str, password: str) -> None:
        super().__init__()
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._extra_headers = [("Authorization", f"Basic {token}")] if user else []

    def make_connection(self, host):
        connection = http.client.HTTPConnection(host, timeout=RPC_SECONDS)
        self._connection = host, connection
        return connection


def _status_of(info: Mapping) -> ServiceStatus:
    state = _STATES[info["statename"]]
    if info["statename"] == "EXITED" and info["exitstatus"] == 0:
        state = ServiceState.STOPPED
    pid = info["pid"] or None
    memory_bytes, cpu_seconds = trees.usage(pid)
    detail = info["spawnerr"] or info["description"]
    if state is ServiceState.FAILED and info["statename"] == "EXITED":
        detail = f"ended with {_ending(info['exitstatus'])}"
    return ServiceStatus(
        name=info["name"],
        state=state,
        pid=pid,
        started_at=float(info["start"]) if pid else None,
        memory_bytes=memory_bytes,
        cpu_seconds=cpu_seconds,
        detail=detail,
        failing=info["statename"] == "BACKOFF",
    )


def _stopped(name: str, detail: str) -> ServiceStatus:
    return ServiceStatus(name, ServiceState.STOPPED, detail=detail)


def _orphaned(name: str, orphan: psutil.Process) -> ServiceStatus:
    return ServiceStatus(
        name, ServiceState.FAILED, pid=orphan.pid, detail="it runs, and nothing watches over it"
    )


def _ending(exit_status: int) -> str:
    # supervisor shows -1 for every signal and keeps which one to its log
    return "a signal" if exit_status < 0 else f"exit code {exit_status}"


def _until(deadline: float) -> Iterator[None]:
    """Yield now and then until the deadline, at least once."""
    yield
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        yield


def _tail(path: Path, lines: int) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 400 * lines))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _pairs(text: str) -> dict[str, str]:
    """Parse supervisor's KEY="value",KEY2=value2."""
    found = re.finditer(r"""(\w+)=("[^"]*"|'[^']*'|[^,]*)""", text)
    return {m[1]: m[2].strip("\"'") for m in found}


def _path() -> str:
    inherited = process.environment().get("PATH", os.defpath)
    return os.pathsep.join([str(Path(sys.executable).parent), inherited])
