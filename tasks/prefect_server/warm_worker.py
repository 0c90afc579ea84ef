"""A worker of Prefect that starts a run at once: a process with all imports done waits for it.

Prefect's own worker starts two Python processes for each run, one after the other, and both import
Prefect. Here too each run has a process of its own, used once; only its imports come first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
from prefect.flows import load_flow_from_flow_run
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, create_isolated_termination_scope
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from tasks.prefect_server import absence
from tasks.prefect_server.announcements import Announcements
from tasks.prefect_server.warm_run import READY

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.runner._control_channel import ControlChannel

log = logging.getLogger("lifeboat")

_ROOT = Path(__file__).parents[2]
_READY_SECONDS = 120
_END_SECONDS = 10
_DEVNULL = asyncio.subprocess.DEVNULL
_PIPE = asyncio.subprocess.PIPE


class WarmProcess:
    """One process that waits for one run. It ends by itself when this worker is gone."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self._ready = False

    @classmethod
    async def spawn(cls) -> WarmProcess:
        # A session of its own: a signal for the group of the worker is not meant for its runs.
        process = await anyio.open_process(
            [sys.executable, "-m", "tasks.prefect_server.warm_run", "flows"],
            stdin=_PIPE,
            stdout=_PIPE,
            stderr=_DEVNULL,
            cwd=_ROOT,
            start_new_session=True,
        )
        return cls(process)

    async def until_ready(self) -> bool:
        """Wait until it has imported everything; False if it has died or hangs."""
        if not self._ready:
            with anyio.move_on_after(_READY_SECONDS), contextlib.suppress(anyio.EndOfStream):
                self._ready = await self.process.stdout.receive() == READY
        return self._ready and self.process.returncode is None

    async def give(self, environment: dict[str, str], directory: Path) -> None:
        told = {"environment": environment, "directory": str(directory)}
        await self.process.stdin.send(json.dumps(told).encode() + b"\n")
        await self.process.stdin.aclose()

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self.process.aclose()


class WarmStarter:
    """Hands a run to a waiting process; Prefect's executor does the rest, as for its own."""

    def __init__(
        self,
        worker: WarmWorker,
        *,
        directory: Path,
        environment: dict[str, str | None],
        control_channel: ControlChannel,
    ) -> None:
        self._worker = worker
        self._directory = directory
        self._environment = environment
        self._control_channel = control_channel

    async def start(
        self,
        flow_run: FlowRun,
        task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        environment: dict[str, str | None] = {
            **get_current_settings().to_environment_variables(exclude_unset=True),
            **self._environment,
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        }
        with contextlib.suppress(RuntimeError):  # no channel: cancelling then ends the process
            port, token = self._control_channel.register(flow_run.id)
            environment["PREFECT__CONTROL_PORT"] = str(port)
            environment["PREFECT__CONTROL_TOKEN"] = token
        try:
            known = {name: value for name, value in environment.items() if value is not None}
            process = await self._worker.hand_over(known, self._directory)
        except BaseException:
            self._control_channel.unregister(flow_run.id)
            raise
        scope = create_isolated_termination_scope(process.pid)
        task_status.started(ProcessHandle(process, termination_scope=scope))
        self._worker.running.add(process)
        try:
            await process.wait()
        finally:
            self._worker.running.discard(process)


class WarmWorker(ProcessWorker):
    """Prefect's process worker, with one process that waits for the next run."""

    # The work pools stay of Prefect's type: its own worker can serve them too.
    type = "process"

    @classmethod
    def __dispatch_key__(cls) -> str:
        # Under the key of its own worker, Prefect warns that it is replaced.
        return "lifeboat-process"

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.running: set[anyio.abc.Process] = set()
        self.draining = False
        self.busy = 0
        self._waiting: WarmProcess | None = None
        self._one_at_a_time = anyio.Lock()
        [queue] = self._work_queues
        self._announcements = Announcements(self._work_pool_name, queue, self._ask)

    async def hand_over(self, environment: dict[str, str], directory: Path) -> anyio.abc.Process:
        """Make a waiting process the run's, and have the next one get ready meanwhile.

        Raises RuntimeError if two in a row died before, or did not get ready.
        """
        async with self._one_at_a_time:
            for _ in range(2):
                warm, self._waiting = self._waiting or await WarmProcess.spawn(), None
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    if await warm.until_ready():
                        await warm.give(environment, directory)
                        if not self.draining:
                            self._waiting = await WarmProcess.spawn()
                        return warm.process
                await warm.end()
        raise RuntimeError(
            "Starting a process for the run: it ended, or was not ready after "
            f"{_READY_SECONDS} s. `python -m tasks.prefect_server.warm_run flows` on this host "
            "shows why."
        )

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> ProcessWorkerResult:
        self.busy += 1
        try:
            special = configuration._command_configured or configuration.working_dir
            if special or configuration.stream_output:
                return await super().run(flow_run, configuration, task_status)
            return await self._run_warm(flow_run, configuration, task_status)
        finally:
            self.busy -= 1

    async def _run_warm(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int],
    ) -> ProcessWorkerResult:
        with tempfile.TemporaryDirectory(suffix="prefect") as directory:
            async with FlowRunExecutorContext() as context:
                starter = WarmStarter(
                    self,
                    directory=Path(directory),
                    environment=configuration.env,
                    control_channel=context.control_channel,
                )
                executor = context.create_executor(
                    flow_run,
                    starter,
                    resolve_flow=load_flow_from_flow_run,
                    propose_submitting=False,
                )
                ended = []

                async def execute(*, task_status: anyio.abc.TaskStatus[ProcessHandle]) -> None:
                    ended.append(await executor.submit(task_status=task_status))

                async with anyio.create_task_group() as group:
                    handle = await group.start(execute)
                    task_status.started(handle.pid)
        if not ended or ended[0] is None or ended[0].status_code is None:
            raise RuntimeError("The process of the flow run could not be started.")
        return ProcessWorkerResult(
            status_code=ended[0].status_code, identifier=str(ended[0].handle.pid)
        )

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        return await self._announcements.ask() if self._announcements.is_time_to_ask else []

    async def _ask(self) -> list[FlowRun]:
        # A worker that is ending takes nothing new.
        return [] if self.draining else await super().get_and_submit_flow_runs()

    async def serve(self, *, drain_seconds: float) -> None:
        """Serve until SIGTERM or SIGINT, then let the runs end.

        Those that have not ended after `drain_seconds` are told to, so that they clean up and are
        reported as Crashed, and not as Running for ever.
        """
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        self._waiting = await WarmProcess.spawn()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.start)
                group.start_soon(self._announcements.listen)
                await told.wait()
                self.draining = True
                log.info("Ending: %d runs are still going.", self.busy)
                await self._until_idle(drain_seconds)
                for number in (signal.SIGTERM, signal.SIGKILL):
                    for process in tuple(self.running):
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process.pid, number)
                    await self._until_idle(_END_SECONDS)
                group.cancel_scope.cancel()
        finally:
            if self._waiting:
                with anyio.CancelScope(shield=True):
                    await self._waiting.end()

    async def _until_idle(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while self.busy:
                await anyio.sleep(0.1)


def serve(pool: str, *, queue: str, name: str, drain_seconds: float) -> None:
    """Run the flows of one work pool on this host, until ended."""
    worker = WarmWorker(work_pool_name=pool, work_queues=[queue], name=name)
    absence.tell_plainly()
    asyncio.run(worker.serve(drain_seconds=drain_seconds))
