"""The same small act on very many things: some at a time, with progress, and no error forgotten."""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from tasks import progress

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16


def act_on_all(
    things: Collection[T], act: Callable[[T], R], *, doing: str, at_once: int = AT_ONCE
) -> list[R]:
    """Act on each of the things, and give the results in their order.

    All are tried, but none more is begun after a refusal, which would meet the others as well.
    Then one error tells how many failed, and the first of them; it is transient if all are.
    """
    tell = progress.of_count(doing, len(things))
    results: dict[int, R] = {}
    errors: list[RecoveryError] = []
    waiting = iter(enumerate(things))
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="many") as pool:
        running: dict[Future[R], int] = {}
        while True:
            refused = any(isinstance(error, PreconditionError) for error in errors)
            if not refused:
                room = 2 * at_once - len(running)
                for number, thing in itertools.islice(waiting, room):
                    # The moment, the run and its settings are those of whoever asked.
                    context = contextvars.copy_context()
                    running[pool.submit(context.run, act, thing)] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                try:
                    results[number] = future.result()
                except RecoveryError as error:
                    errors.append(error)
            tell(len(results) + len(errors))
    if errors:
        raise _all_told(errors, len(things), len(results), doing)
    return [results[number] for number in range(len(results))]


def _all_told(errors: list[RecoveryError], total: int, done: int, doing: str) -> RecoveryError:
    passing = all(isinstance(error, TransientError) for error in errors)
    refusal = next((error for error in errors if isinstance(error, PreconditionError)), None)
    first = refusal or errors[0]
    kind = TransientError if passing else RecoveryError
    return kind(
        f"{doing}: {done} of {total} are done, {len(errors)} failed. The first: {first.message}",
        hint=f"{first.hint} Run it again: what is done already is not done twice.".strip(),
    )
