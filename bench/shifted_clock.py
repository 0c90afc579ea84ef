"""A wall clock that can be put forward, for a Prefect server and for this process alike.

Only what a clock shows is changed, never how fast time goes: time-outs and sleeps stay true.
"""

from __future__ import annotations

import os
import struct
import sys
from datetime import datetime, timezone
from pathlib import Path

from lifeboat.tools import process

_SOURCE = Path(__file__).with_suffix(".c")
_PRELOAD, _FILE = "LD_PRELOAD", "SHIFTED_CLOCK"


class ShiftedClock:
    """The clock of this process and of all that are started with `environment`."""

    def __init__(self) -> None:
        self._file = Path(os.environ[_FILE])
        self._ahead = 0

    @property
    def environment(self) -> dict[str, str]:
        return {name: os.environ[name] for name in (_PRELOAD, _FILE)}

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def put_to(self, moment: datetime) -> None:
        """Put it forward; where it is later already, leave it. Raises RuntimeError if it stays."""
        seconds = round((moment - self.now()).total_seconds())
        if seconds <= 0:
            return
        self._ahead += seconds
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", self._ahead))
        if abs((moment - self.now()).total_seconds()) > 2:
            raise RuntimeError("Putting the clock forward: it stays. Was the process preloaded?")


def begin_anew_with_it(directory: Path, **environment: str) -> None:
    """Become the same program with a clock that can be shifted, unless that was done already.

    Raises PreconditionError where no C compiler is.
    """
    if _FILE in os.environ:
        return
    library, file = directory / "shifted_clock.so", directory / "ahead"
    process.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"],
        doing="Compiling the clock that can be shifted",
    )
    file.write_bytes(struct.pack("=q", 0))
    sys.stdout.flush()
    changed = {**os.environ, **environment, _PRELOAD: str(library), _FILE: str(file)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], changed)
