"""A flow that says who runs it and stays for a while, for the tests of the worker."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prefect import flow, get_run_logger


@flow
def linger(directory: str, seconds: float = 0, until_there: str = "") -> None:
    """Write process, parent and what the pool told; wait; write again if it is ended."""
    get_run_logger().info("lingering")
    began = Path(directory) / f"{os.getpid()}.began"
    written = began.with_suffix(".part")
    written.write_text(f"{os.getpid()} {os.getppid()} {os.environ['TOLD_BY_THE_POOL']}")
    written.rename(began)
    end = time.monotonic() + (seconds or (120 if until_there else 0))
    try:
        while time.monotonic() < end and not (until_there and Path(until_there).exists()):
            time.sleep(0.1)
    finally:
        began.with_suffix(".cleaned").touch()
