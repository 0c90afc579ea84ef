"""One flow run in a process of its own that has imported everything before the run is known.

`python -m tasks.prefect_server.warm_run flows` imports Prefect and that package, says READY, and
waits on its standard input for the environment of one run. It then becomes what `python -m
prefect.engine` is.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
import runpy
import sys

from lifeboat.settings.environment import replace_environment
from tasks.prefect_server import absence

READY = b"ready\n"


def import_ahead(package: str) -> None:
    """Import what a run needs. A flow that can't be imported fails in its own run, not here."""
    import prefect.client.orchestration
    import prefect.flow_engine
    import prefect.task_engine  # noqa: F401

    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        try:
            importlib.import_module(module.name)
        except Exception:
            logging.getLogger("lifeboat").exception("Importing %s ahead", module.name)


def take(line: bytes) -> None:
    """Take over a run's environment and directory."""
    told = json.loads(line)
    replace_environment(told["environment"])
    os.chdir(told["directory"])
    # Prefect has read its settings when it was imported.
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import setup_logging

    refresh_global_settings_context()
    setup_logging(incremental=False)
    absence.tell_plainly()


def main() -> None:
    # What an import may print is no part of what is said to the worker.
    answer = os.dup(1)
    os.dup2(2, 1)
    import_ahead(sys.argv[1])
    os.write(answer, READY)
    os.close(answer)
    line = sys.stdin.buffer.readline()
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    if not line:
        return  # the worker has ended, or needs no more
    take(line)
    sys.argv = ["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
