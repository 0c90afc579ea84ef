"""The only door to other programs: masked, bounded in time, and nothing left behind."""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from lifeboat.core.errors import CommandFailed, PreconditionError, TransientCommandFailed

log = logging.getLogger("lifeboat.process")

TAIL_LINES = 25
GRACE_SECONDS = 5.0
MASK = "********"

_LONGEST_TAIL_LINE = 2000  # characters
_CHUNK_BYTES = 1 << 16  # what a Linux pipe holds
_LOOK_SECONDS = 0.2  # how often a silent program is looked at
_STILL_OPEN_SECONDS = 1.0  # how long an ended program's pipe is read that another one holds open

# What a program may see of our environment. Everything else, secrets among it, is given by name.
_INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "TZ", "SSH_AUTH_SOCK"),
        *("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    }
)
_INHERITED_PREFIXES = ("LC_", "SSL_CERT_", "XDG_")

_USER_NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig=TERM", "--")

_HOW_TO_INSTALL = {
    "restic": "Install restic 0.17 or newer (https://restic.net), or run `make setup`.",
    "git": "Install git.",
    "docker": "Install Docker with its compose plugin.",
    "setpriv": "Install util-linux.",
    "unshare": "Install util-linux.",
}


@dataclass(frozen=True)
class Finished:
    """A program that ended as it should. `stderr_tail` is masked, `stdout` is data and is not."""

    exit_code: int
    stdout: bytes
    stderr_tail: str
    seconds: float


def run(
    argv: Sequence[str | Path],
    *,
    doing: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_seconds: float | None = None,
    input: bytes | None = None,
    secrets: Collection[str] = (),
    on_line: Callable[[str], None] | None = None,
    on_error_line: Callable[[str], None] | None = None,
    on_look: Callable[[], None] | None = None,
    ok_codes: Collection[int] = (0,),
) -> Finished:
    """Run a program to its end and give what it said.

    It gets PATH, HOME, locale, time zone, certificates and proxies of this process, and `env`;
    never the rest of our environment. It runs in a session of its own: on a time-out, Ctrl-C or
    any other exception, one that `on_line` raises among them, its whole process group gets
    SIGTERM and after 5 s SIGKILL. If this process is killed the program gets SIGTERM (Linux).

    With `on_line` standard output is handed over line by line while the program runs, in the
    thread of the caller, and `stdout` of the result is empty. `on_error_line` gets the lines of
    standard error, masked. `on_look` is called several times a second, whatever the program says:
    it may raise when the program must be ended.

    Raises CommandFailed with the last 25 lines of standard error, `secrets` masked, for an exit
    code that is not in `ok_codes`; TransientCommandFailed on a time-out; PreconditionError, saying
    what to install, if the program is missing.
    """
    words = _words(argv)
    hidden = _longest_first(secrets)
    doing = mask(doing, hidden)
    program = _program_name(words)
    environment = _environment(env)
    _require_program(words, environment, doing)
    log.debug("%s", mask(shlex.join(words), hidden))
    began = time.monotonic()
    child = _spawn(
        _dying_with_us(words),
        doing,
        environment,
        cwd,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said = _Said(hidden, on_line, on_error_line)
    try:
        with child:
            exit_code = _converse(
                child,
                said,
                input,
                None if timeout_seconds is None else began + timeout_seconds,
                on_look or (lambda: None),
            )
    except _TimedOut:
        raise TransientCommandFailed(
            program,
            -signal.SIGTERM,
            said.stderr_tail,
            doing=f"{doing} (not done after {timeout_seconds:g} s)",
        ) from None
    except _GivenUp:
        # No failure, from which anybody could conclude anything.
        raise KeyboardInterrupt(f"{doing}: ended, as what it was part of was given up") from None
    seconds = time.monotonic() - began
    log.debug("%s: exit code %d after %.2f s", program, exit_code, seconds)
    if exit_code not in ok_codes:
        raise CommandFailed(program, exit_code, said.stderr_tail, doing=doing)
    return Finished(exit_code, bytes(said.stdout), said.stderr_tail, seconds)


_ends: ContextVar[tuple[threading.Event, ...]] = ContextVar("ends", default=())


@contextlib.contextmanager
def ended_together() -> Iterator[threading.Event]:
    """Once the event is set, the programs are ended that any thread with this context runs.

    There it is as if that thread were interrupted: KeyboardInterrupt.
    """
    end = threading.Event()
    token = _ends.set((*_ends.get(), end))
    try:
        yield end
    finally:
        _ends.reset(token)


@dataclass(frozen=True)
class Daemon:
    """A program that goes on beside us until it is stopped, at the latest with the `with`."""

    child: subprocess.Popen
    program: str

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def stop(self, *, grace_seconds: float = GRACE_SECONDS, sig: int = signal.SIGTERM) -> None:
        """End it and everything it started: `sig`, then SIGKILL to what is left after the grace."""
        _end_group(self.child, grace_seconds=grace_seconds, first=sig)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    argv: Sequence[str | Path],
    *,
    doing: str,
    env: Mapping[str, str] | None = None,
    log_path: Path,
    cwd: Path | None = None,
) -> Daemon:
    """Start a program in a session of its own; what it says is appended to `log_path`.

    It outlives a killed parent: the signal for that comes when the *thread* that started the
    program ends, and a step's thread ends long before its daemon should.
    """
    words = _words(argv)
    environment = _environment(env)
    _require_program(words, environment, doing)
    log.debug("%s", shlex.join(words))
    sink = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = _spawn(
            words,
            doing,
            environment,
            cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    finally:
        os.close(sink)
    return Daemon(child, _program_name(words))


def replace(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> NoReturn:
    """Become another program. Raises PreconditionError if it is missing."""
    words = _words(argv)
    environment = _environment(env)
    _require_program(words, environment, f"Starting {_program_name(words)}")
    # Python ignores these two, and what is ignored stays so in the program that we become.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvpe(words[0], words, environment)


def unprivileged(argv: Sequence[str | Path]) -> tuple[str, ...]:
    """Given a command that refuses to run as root, give one that runs although we are root.

    In a user namespace our files keep their owner and belong to the mapped user inside, so it
    works in any directory that we can read, also below one of mode 0700. Where namespaces are not
    permitted it runs as `nobody`, who must be able to reach its files. Raises PreconditionError
    where neither can be had.
    """
    words = _words(argv)
    if os.geteuid() != 0:
        return words
    if _works(_USER_NAMESPACE):
        return (*_USER_NAMESPACE, *words)
    if _works(_AS_NOBODY):
        return (*_AS_NOBODY, *words)
    raise PreconditionError(
        f"Running {Path(words[0]).name}: it refuses to run as root, and neither user namespaces "
        "nor setpriv can be used here.",
        hint="Install util-linux, or run Lifeboat as another user.",
    )


def environment() -> dict[str, str]:
    """All of our own environment, to expand what a user wrote with it; never to hand it on."""
    return dict(os.environ)


def mask(text: str, secrets: Collection[str]) -> str:
    """Give the text with every secret replaced."""
    for secret in _longest_first(secrets):
        text = text.replace(secret, MASK)
    return text


class _TimedOut(Exception):
    """The program was not done in time."""


class _GivenUp(Exception):
    """What the program belongs to was given up."""


@dataclass
class _Said:
    """What a program says, taken in while it says it."""

    hidden: tuple[str, ...]
    on_line: Callable[[str], None] | None
    on_error_line: Callable[[str], None] | None
    stdout: bytearray = field(default_factory=bytearray)
    _line: bytearray = field(default_factory=bytearray)
    _error_line: bytearray = field(default_factory=bytearray)
    _tail: collections.deque[str] = field(
        default_factory=lambda: collections.deque(maxlen=TAIL_LINES)
    )

    @property
    def stderr_tail(self) -> str:
        # Masked once more when joined: a secret may have several lines.
        return mask("\n".join(self._tail), self.hidden)

    def take_stdout(self, chunk: bytes) -> None:
        if self.on_line is None:
            self.stdout += chunk
            return
        for line in _whole_lines(self._line, chunk):
            self.on_line(line)

    def take_stderr(self, chunk: bytes) -> None:
        for line in _whole_lines(self._error_line, chunk):
            # Cut only after masking, or half a secret would stay.
            masked = mask(line, self.hidden).rstrip()
            self._tail.append(masked[:_LONGEST_TAIL_LINE])
            if self.on_error_line is not None:
                self.on_error_line(masked)


def _whole_lines(rest: bytearray, chunk: bytes) -> list[str]:
    """Give the lines that are complete with this chunk; an empty chunk is the end."""
    if chunk:
        *lines, last = (bytes(rest) + chunk).split(b"\n")
        rest[:] = last
    else:
        lines = [bytes(rest)] if rest else []
        rest.clear()
    return [line.decode(errors="replace") for line in lines]


def _converse(
    child: subprocess.Popen,
    said: _Said,
    input: bytes | None,
    deadline: float | None,
    look: Callable[[], None],
) -> int:
    """Feed and read a program until it has ended; end it if that takes too long or we can't go on.

    One thread and non-blocking pipes: no pipe can fill up while another one is waited for.
    """
    try:
        with selectors.DefaultSelector() as selector:
            _register(selector, child.stdout, selectors.EVENT_READ, said.take_stdout)
            _register(selector, child.stderr, selectors.EVENT_READ, said.take_stderr)
            if child.stdin is not None:
                _register(selector, child.stdin, selectors.EVENT_WRITE, memoryview(input or b""))
            _pump(child, selector, deadline, look)
        return child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise _TimedOut from None
    except BaseException:
        _end_group(child)
        raise


def _register(selector: selectors.BaseSelector, pipe, event: int, data: object) -> None:
    os.set_blocking(pipe.fileno(), False)
    selector.register(pipe, event, data)


def _pump(
    child: subprocess.Popen,
    selector: selectors.BaseSelector,
    deadline: float | None,
    look: Callable[[], None],
) -> None:
    last_heard, ended, ends = time.monotonic(), False, _ends.get()
    while selector.get_map():
        look()
        if any(end.is_set() for end in ends):
            raise _GivenUp
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise _TimedOut
        patience = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - now)
        ended = child.poll() is not None
        ready = selector.select(patience)
        # Only if there is nothing to read: on a busy machine it is we who come late.
        if ended and not ready and now - last_heard > _STILL_OPEN_SECONDS:
            log.debug("%d has ended, but something that it started holds its output", child.pid)
            return
        for key, _ in ready:
            last_heard = now
            if isinstance(key.data, memoryview):
                _feed(selector, key)
                continue
            chunk = os.read(key.fd, _CHUNK_BYTES)
            key.data(chunk)
            if not chunk:
                selector.unregister(key.fileobj)


def _feed(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    try:
        left = key.data[os.write(key.fd, key.data[:_CHUNK_BYTES]) :] if key.data else key.data
    except BrokenPipeError:
        left = memoryview(b"")  # it ended early; its exit code tells why
    if left:
        selector.modify(key.fileobj, selectors.EVENT_WRITE, left)
    else:
        selector.unregister(key.fileobj)
        with contextlib.suppress(BrokenPipeError):
            key.fileobj.close()


def _end_group(
    child: subprocess.Popen, *, grace_seconds: float = GRACE_SECONDS, first: int = signal.SIGTERM
) -> None:
    """End a process group: `first`, then SIGKILL to whatever of it is left after the grace."""
    try:
        if _signal_group(child, first):
            deadline = time.monotonic() + grace_seconds
            while time.monotonic() < deadline:
                child.poll()  # a zombie still counts as a member of its group
                if not _signal_group(child, 0):
                    break
                time.sleep(0.02)
    finally:
        # Also after a second Ctrl-C, which must not wait for the grace to pass.
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen, sig: int) -> bool:
    """Say whether there is still such a group."""
    try:
        os.killpg(child.pid, sig)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _words(argv: Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(str(word) for word in argv)


def _longest_first(secrets: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(filter(None, secrets), key=len, reverse=True))


def _program_name(words: Sequence[str]) -> str:
    """The program that does the work, not the wrapper of `unprivileged`."""
    return Path(words[len(_wrapper(words))]).name


def _wrapper(words: Sequence[str]) -> tuple[str, ...]:
    for prefix in (_USER_NAMESPACE, _AS_NOBODY):
        if tuple(words[: len(prefix)]) == prefix:
            return prefix
    return ()


def _dying_with_us(words: tuple[str, ...]) -> tuple[str, ...]:
    """Give a command that gets SIGTERM when the thread that started it ends.

    `run` stays in that thread until the program has ended, so it ends early only when we are
    killed; and what `run` starts can be done again. By setpriv and not by a function between fork
    and exec, which may deadlock when other threads hold locks. Changing the user clears the
    setting, so it comes after the wrapper that does.
    """
    if not _works(_DIE_WITH_PARENT):
        return words
    wrapper = _wrapper(words)
    return (*wrapper, *_DIE_WITH_PARENT, *words[len(wrapper) :])


@functools.cache
def _works(wrapper: tuple[str, ...]) -> bool:
    """Whether a command with this wrapper before it runs; tried once."""
    if not shutil.which(wrapper[0]):
        return False
    return subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return {**kept, **(env or {})}


def _require_program(words: tuple[str, ...], environment: Mapping[str, str], doing: str) -> None:
    program = words[len(_wrapper(words))]
    if shutil.which(program, path=environment.get("PATH", os.defpath)):
        return
    if Path(program).exists():
        raise PreconditionError(
            f"{doing}: {program} may not be run.", hint="Look at its mode and owner."
        )
    name = Path(program).name
    default = (
        "Install PostgreSQL's programs of the server's major version, or set "
        "`database.bin_directory` in lifeboat.yaml."
        if name.startswith("pg_") or name in ("postgres", "initdb", "psql")
        else f"Install {name}, or name its place in lifeboat.yaml."
    )
    raise PreconditionError(
        f"{doing}: the program {program} is not there.", hint=_HOW_TO_INSTALL.get(name, default)
    )


def _spawn(
    words: tuple[str, ...],
    doing: str,
    environment: Mapping[str, str],
    cwd: Path | None,
    **pipes: int,
) -> subprocess.Popen:
    try:
        return subprocess.Popen(words, env=environment, cwd=cwd, start_new_session=True, **pipes)
    except OSError as error:
        raise PreconditionError(
            f"{doing}: {error.filename or words[0]} can't be used ({error.strerror}).",
            hint="Look at its place, mode and owner.",
        ) from error
