"""restic run once: the gate through which every call goes, with its locks, errors and secrets."""

from __future__ import annotations

import logging
import re
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lifeboat.core.errors import (
    CommandFailed,
    RecoveryError,
    TransientCommandFailed,
    TransientError,
)
from lifeboat.tools import process
from lifeboat.tools.restic.errors import (
    DamagedKey,
    GaveUp,
    Locked,
    NoLockPossible,
    WrongPassword,
    error_of,
)
from lifeboat.tools.restic.keys import HostKey, host_key
from lifeboat.tools.restic.output import PROGRESS_SECONDS, Problems

log = logging.getLogger("lifeboat.restic")

_CONNECT_SECONDS = 5.0
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")


_readers: Counter[str] = Counter()  # long reads of this process, by the repository
_readers_lock = threading.Lock()


@contextmanager
def _reading(location: str) -> Iterator[bool]:
    """Whether nobody else in this process reads the repository at length."""
    with _readers_lock:
        first = not _readers[location]
        _readers[location] += 1
    try:
        yield first
    finally:
        with _readers_lock:
            _readers[location] -= 1


@dataclass(frozen=True, kw_only=True)
class Calling:
    """Where a repository is and how restic is run on it; what is done with it is in the others."""

    location: str
    password: str = field(repr=False)
    program: Path
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)
    cache_directory: Path | None = None
    host_keys: Path | None = None  # where this host keeps its own keys, if it may have any
    host: str | None = None
    connections: int | None = None  # at the same time; restic's own: 5 for S3, 2 for a directory
    pack_size_mib: int | None = None
    compression: Literal["auto", "off", "max"] = "auto"
    options: Sequence[str] = ()  # further `-o key=value`
    patience_seconds: float = 60.0
    lock_wait_seconds: int = 30  # for another program's lock that is not stale

    def unlock(self) -> int:
        """Remove locks whose owner is dead or silent for 30 minutes; say how many there were."""
        said = self._call(
            ["unlock"], doing=f"Removing stale locks of {self.location}", as_json=False
        )
        found = re.search(rb"removed (\d+) lock", said.stdout)
        return int(found[1]) if found else 0

    def _read(
        self,
        words: list[str],
        *,
        doing: str,
        **how: Any,
    ) -> process.Finished:
        """A look without a lock: it must not make a prune or a backup fail, nor wait for one."""
        return self._call(["--no-lock", *words], doing=doing, **how)

    def _sharing(self, words: list[str], *, doing: str, **how: Any) -> process.Finished:
        """A long read, with a lock that keeps a prune away; without one where it can't be had.

        A server that was lost in the middle of a prune leaves a lock that counts as alive for
        half an hour, and a full disk takes no lock: neither may hold up a recovery.

        Of those that this process makes side by side only the first takes one. restic reads all
        locks that it finds, and where one has gone meanwhile, as that of a neighbour which was
        done, it waits for 5 s.
        """
        with _reading(self.location) as first:
            if not first:
                return self._call(["--no-lock", *words], doing=doing, **how)
            try:
                return self._call(words, doing=doing, **how)
            except (Locked, NoLockPossible) as error:
                log.warning("%s: going on without a lock (%s)", doing, error)
                return self._call(["--no-lock", *words], doing=doing, **how)

    def _locked(self, words: list[str], *, doing: str, **how: Any) -> process.Finished:
        """A change. A stale lock is removed and reported; one that is alive is waited for."""
        try:
            return self._call(words, doing=doing, **how)
        except Locked:
            removed = self.unlock()
            if removed:
                log.warning("%s: removed %d stale locks", doing, removed)
            words = [f"--retry-lock={self.lock_wait_seconds}s", *words]
            return self._call(words, doing=doing, **how)

    def _call(
        self, words: list[str], *, doing: str, by_password: bool = False, **how: Any
    ) -> process.Finished:
        """Run restic with this host's own key, or else with the vault's password.

        With `by_password` and once an hour with the password alone, which may have been removed.
        """
        self._require_answer(doing)
        own = self.own_key or HostKey(Path())
        refused: RecoveryError | None = None
        if own.may_be_used and not by_password:
            try:
                return self._run(words, own.environment(self.password), doing=doing, **how)
            except (WrongPassword, DamagedKey) as error:
                refused = error
        began = time.time()
        # Named first, so that a damaged key beside it does not matter.
        hint = {"RESTIC_KEY_HINT": own.of_password} if own.of_password else {}
        by_vault = {"RESTIC_PASSWORD": self.password, **hint}
        done = self._run(words, by_vault, doing=doing, **how)
        if refused:
            log.warning("This host's own key is made anew at the next backup: %s", refused)
            own.forget()
        elif own.id:
            own.password_opened(began)
        return done

    @property
    def own_key(self) -> HostKey | None:
        """The key of this host, there or not; None if it may have none."""
        return host_key(self.host_keys, self.location) if self.host_keys else None

    def _run(
        self,
        words: list[str],
        opening: Mapping[str, str],
        *,
        doing: str,
        as_json: bool = True,
        problems: Problems | None = None,
        ok_codes: Collection[int] = (0,),
        **how: Any,
    ) -> process.Finished:
        problems = problems or Problems()
        problems.begin(self.patience_seconds)
        try:
            return process.run(
                [self.program, *(["--json"] if as_json else []), *self._global_words(), *words],
                doing=doing,
                env={**self._environment(), **opening},
                secrets=[*self._secrets(), opening["RESTIC_PASSWORD"]],
                on_error_line=problems.take,
                ok_codes=ok_codes,
                **how,
            )
        except GaveUp as error:
            raise error_of(-signal.SIGTERM, str(error), doing) from error
        except TransientCommandFailed:
            raise  # a time-out
        except CommandFailed as error:
            text = problems.text or error.stderr_tail
            raise error_of(error.exit_code, text, error.doing) from error

    def _global_words(self) -> list[str]:
        words = [f"--repo={self.location}", "--stuck-request-timeout=1m"]
        words += [f"--compression={self.compression}"]
        words += [f"--pack-size={self.pack_size_mib}"] if self.pack_size_mib else []
        if self.connections:
            backend = "s3" if self.location.startswith("s3:") else "local"
            words += [f"--option={backend}.connections={self.connections}"]
        return words + [f"--option={option}" for option in self.options]

    def _environment(self) -> dict[str, str]:
        cache = {"RESTIC_CACHE_DIR": str(self.cache_directory)} if self.cache_directory else {}
        return {
            **self.environment,
            **cache,
            "RESTIC_PROGRESS_FPS": f"{1 / PROGRESS_SECONDS:g}",
            "TZ": "UTC",  # in which `--time` is read
        }

    def _secrets(self) -> tuple[str, ...]:
        secret = (value for name, value in self.environment.items() if _SECRET_NAME.search(name))
        return (self.password, *secret)

    def _require_answer(self, doing: str) -> None:
        """Raise TransientError if nothing listens at the S3 service's address.

        restic finds out too, but tells after 15 minutes.
        """
        if not self.location.startswith("s3:"):
            return
        address = self.location.removeprefix("s3:")
        url = urlsplit(address if "://" in address else f"https://{address}")
        host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
        proxied = urllib.request.getproxies().get(url.scheme)
        if proxied and not urllib.request.proxy_bypass(host):
            return
        try:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise TransientError(
                f"{doing}: {host}:{port} does not answer ({error}).",
                hint="Look at the network and at vault.s3.endpoint.",
            ) from error
