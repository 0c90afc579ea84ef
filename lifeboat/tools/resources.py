"""What this host has left: memory and disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Space:
    """One file system, as an unprivileged program may fill it."""

    path: Path
    free_bytes: int
    total_bytes: int

    @property
    def free_percent(self) -> float:
        return 100 * self.free_bytes / self.total_bytes if self.total_bytes else 0.0


def file_systems(paths: list[Path]) -> tuple[Space, ...]:
    """The file systems on which the paths lie, each once; missing paths count by their parent."""
    found: dict[int, Space] = {}
    for path in paths:
        while not path.exists():
            path = path.parent
        device = path.stat().st_dev
        told = os.statvfs(path)
        found.setdefault(
            device, Space(path, told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)
        )
    return tuple(found.values())


def available_memory_percent() -> float:
    told = psutil.virtual_memory()
    return 100 * told.available / told.total


def cores() -> int:
    return os.cpu_count() or 1
