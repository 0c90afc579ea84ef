"""The one place that knows whether a procedure runs under Prefect or alone.

`@procedure` makes a flow and `@step` makes a task of plain functions. Inside a Prefect flow run a
step is a Prefect task: retried, logged, shown. Anywhere else it is a plain call with the same
retries. `run_alone()`, called before the flows are imported, keeps Prefect from being imported at
all: on a blank machine at 3 a.m. starting it costs 10 to 22 s and can fail.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

from lifeboat.core.errors import (
    AgreementVoid,
    LockBusy,
    NobodyApproved,
    PreconditionError,
    RecoveryError,
    Rejected,
    TransientError,
    VerificationFailed,
)
from lifeboat.core.timeline import Outcome, Phase, StepRecord
from lifeboat.tools import process
from tasks.record import current_run, flow_run

P = ParamSpec("P")
R = TypeVar("R")

RETRY_WAITS_SECONDS = (1.0, 5.0, 15.0)

log = logging.getLogger("lifeboat")

_alone = False


def run_alone() -> None:
    """Run every procedure of this process without Prefect. Call it before importing flows."""
    global _alone
    _alone = True


def is_alone() -> bool:
    return _alone


def procedure(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect flow of a function, or leave it plain in a process that runs alone."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if _alone:
            return function
        import prefect

        # Results hold settings and verdicts and are kept in Lifeboat's own records.
        return prefect.flow(_naming_ends(function), name=name, persist_result=False)

    return decorate


def _naming_ends(function: Callable[P, R]) -> Callable[P, R]:
    """Let no run look green that is not: green means done, and good.

    One that a person rejected ends as cancelled, in the state `Rejected`, and one that nobody
    approved in time in `NobodyApproved`: nothing was touched, and nothing failed. One whose plan
    did not hold any more when it was approved says so likewise.
    A run that was asked for its plan only ends in the state `DryRun`. One that found what it looked
    at not to be good ends in the failed state `NotGood`, if it runs by a deployment: from a shell
    its result is wanted, and the exit code says the same.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        if log.level == logging.NOTSET and _runs_by_deployment():
            # Prefect hands our log on to its server (prefect.yaml), and leaves its level alone.
            log.setLevel(logging.INFO)
        flow_run.set(_flow_run_id())
        try:
            result = function(*args, **kwargs)
        except (Rejected, NobodyApproved, AgreementVoid) as error:
            from prefect.states import Cancelled

            # With the error as its data it is raised again where the flow was called from a shell.
            return Cancelled(name=type(error).__name__, message=str(error), data=error)
        if any(getattr(value, "dry_run", False) for value in (*args, *kwargs.values())):
            from prefect.states import Completed

            return Completed(name="DryRun", message="Nothing was touched.", data=result)
        if getattr(result, "good", True) or not _runs_by_deployment():
            return result
        from prefect.states import Failed

        return Failed(name="NotGood", message=result.in_words())

    # Prefect reads the types of the form from here, and can't resolve another module's names.
    signature = inspect.signature(function, eval_str=True)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return run


def _flow_run_id() -> str:
    from prefect.runtime import flow_run as running

    return str(running.id or "")


def _runs_by_deployment() -> bool:
    from prefect.runtime import deployment

    return deployment.id is not None


class Step(Generic[P, R]):
    """A unit of work with a name, a phase of the recovery clock, and retries of what may pass."""

    def __init__(self, function: Callable[P, R], *, phase: Phase | None, retries: int) -> None:
        self.function = function
        self.phase = phase
        self.retries = retries
        self.name = function.__name__.replace("_", "-")
        self._task: Any = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        call = _Call(self, args, kwargs)
        if in_flow_run():
            return self._as_task()(call)
        return self._with_retries(call)

    def _with_retries(self, call: _Call) -> R:
        for attempt in range(self.retries + 1):
            try:
                return call()
            except TransientError as error:
                if attempt == self.retries:
                    raise
                wait = RETRY_WAITS_SECONDS[min(attempt, len(RETRY_WAITS_SECONDS) - 1)]
                log.warning("%s: %s Trying again in %g s.", self.name, error, wait)
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _as_task(self) -> Any:
        if self._task is None:
            import prefect
            from prefect.cache_policies import NO_CACHE

            # With a cache two identical calls in one run would act only once.
            self._task = prefect.task(
                _perform,
                name=self.name,
                retries=self.retries,
                retry_delay_seconds=list(RETRY_WAITS_SECONDS[: self.retries]) or None,
                retry_condition_fn=_is_transient,
                cache_policy=NO_CACHE,
                persist_result=False,
            )
        return self._task


class _Call:
    """A step with its arguments, opaque to Prefect, which would walk through and copy them."""

    def __init__(self, step: Step, args: tuple, kwargs: dict) -> None:
        self.step, self.args, self.kwargs = step, args, kwargs

    def __call__(self) -> Any:
        run = current_run()
        step = self.step
        began = time.time()
        run.step_began(step.name, step.phase, began)
        outcome, note = Outcome.FAILED, ""
        try:
            result = step.function(*self.args, **self.kwargs)
            outcome = Outcome.DONE
            return result
        except BaseException as error:
            note = str(error) or type(error).__name__
            raise
        finally:
            run.step_ended(
                StepRecord(
                    name=step.name,
                    phase=step.phase,
                    began_at=began,
                    ended_at=time.time(),
                    outcome=outcome,
                    note=note,
                )
            )


def _perform(call: _Call) -> Any:
    return call()


def _is_transient(task: Any, task_run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


def step(phase: Phase | None = None, *, retries: int = 0) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a step of a function. Only TransientErrors are retried; say so only of what is safe
    to do twice.
    """

    def decorate(function: Callable[P, R]) -> Step[P, R]:
        return Step(function, phase=phase, retries=retries)

    return decorate


def in_flow_run() -> bool:
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _common_kind(errors: Iterable[BaseException]) -> type[RecoveryError]:
    """What all the errors are, so that several refusals are still a refusal."""
    errors = tuple(errors)
    kinds = (TransientError, LockBusy, PreconditionError, VerificationFailed)
    return next((k for k in kinds if all(isinstance(e, k) for e in errors)), RecoveryError)


def side_by_side(
    work: Mapping[str, Callable[[], Any]], *, at_once: int | None = None
) -> dict[str, Any]:
    """Do independent things at the same time (all, or so many) and give their results by name.

    All are tried to the end; then the failures are raised together. One failure alone is raised
    as it is. Only an interruption ends what the others run, and is raised when they have ended.
    """
    if not work:
        return {}
    results: dict[str, Any] = {}
    failures: dict[str, BaseException] = {}
    with (
        process.ended_together() as end,
        ThreadPoolExecutor(max_workers=at_once or len(work), thread_name_prefix="side") as pool,
    ):
        futures = {
            name: pool.submit(contextvars.copy_context().run, act) for name, act in work.items()
        }
        try:
            for name, future in futures.items():
                error = future.exception()
                if error is None:
                    results[name] = future.result()
                else:
                    failures[name] = error
        except BaseException:  # of this thread: nobody waits hours for a restore after Ctrl-C
            end.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        for error in failures.values():
            if not isinstance(error, RecoveryError):
                raise error
        told = " ".join(f"[{name}] {error}" for name, error in failures.items())
        raise _common_kind(failures.values())(f"{len(failures)} of {len(work)} failed: {told}")
    return results
