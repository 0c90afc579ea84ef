"""A Prefect server that is away, told in a sentence: its client tells it in a page of traceback."""

from __future__ import annotations

import logging
import time

_AGAIN_SECONDS = 60.0
_TELLERS = ("prefect", "websockets", "httpx")
# By their names: it is Prefect's client that speaks HTTP here, and not we.
_CLIENTS_OWN = {"httpx.TransportError", "websockets.InvalidMessage", "websockets.ConnectionClosed"}


class Absence(logging.Filter):
    """Lets through what a logger says, but for tracebacks of a connection that failed.

    Of those it makes one sentence, once a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told_at: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or not record.name.startswith(_TELLERS) or not _is_absence(error):
            return True
        now = time.monotonic()
        if self._told_at is not None and now - self._told_at < _AGAIN_SECONDS:
            return False
        self._told_at = now
        record.msg = (
            "Prefect's server does not answer (%s). What has begun goes on; what is due meanwhile "
            "begins when it is back. From a shell `lifeboat recover` needs no server."
        )
        record.args = (str(error) or type(error).__name__,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def tell_plainly() -> None:
    """Let the log of this process tell it so."""
    absence = Absence()
    for logger in (logging.getLogger(), *map(logging.getLogger, _TELLERS)):
        for handler in logger.handlers:
            handler.addFilter(absence)


def _is_absence(error: BaseException) -> bool:
    """Whether it, or what it came of, is a connection that was not there."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ConnectionError, TimeoutError)) or _CLIENTS_OWN & {
            f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(seen).__mro__
        }:
            return True
        if isinstance(seen, BaseExceptionGroup):
            return all(_is_absence(one) for one in seen.exceptions)
        seen = seen.__cause__
    return False
