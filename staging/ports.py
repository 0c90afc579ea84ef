"""Free ports on 127.0.0.1, chosen once for a site and kept."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Ports:
    postgres: int
    redis: int
    backend: int
    ai: int
    metrics: int
    supervisor: int
    s3: int
    s3_grpc: int
    s3_master: int
    s3_master_grpc: int
    s3_volume: int
    s3_volume_grpc: int
    s3_filer: int
    s3_filer_grpc: int


def choose_ports() -> Ports:
    """The ports of a new site."""
    names = [field.name for field in fields(Ports)]
    return Ports(**dict(zip(names, choose_free(len(names)), strict=True)))


def choose_free(count: int) -> list[int]:
    """Ports that nobody has now, and that no living process has chosen by this before.

    What a site has stopped for a while would be another one's meanwhile. Below 32768: above it the
    kernel may give a stopped service's port to any connection.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 32000), 2000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if not _claim(port):
            continue
        free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError("There are no free ports on 127.0.0.1.")


def _claim(port: int) -> bool:
    """Note that a port is this process's; False if it is another one's that lives, or ours."""
    claims = Path(tempfile.gettempdir()) / f"lifeboat-ports-{os.getuid()}"
    claims.mkdir(exist_ok=True)
    claim = claims / str(port)
    try:
        with claim.open("x") as file:
            file.write(str(os.getpid()))
        return True
    except FileExistsError:
        owner = claim.read_text()
        if not owner or Path(f"/proc/{owner}").exists():
            return False
        claim.write_text(str(os.getpid()))
        return True
