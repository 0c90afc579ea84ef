"""The file store: every content once, at a path made of its SHA-256."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FORMATS = (".dxf", ".step", ".stl")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stored:
    sha256: str
    bytes: int
    path: str
    """Relative to the store."""


def path_of(sha256: str, suffix: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}{suffix}"


class Store:
    """`incoming` must lie on the same file system: what is half written is never in the store."""

    def __init__(self, directory: Path, incoming: Path) -> None:
        self.directory = directory
        self._incoming = incoming

    def save(self, content: BinaryIO, suffix: str) -> Stored:
        """Store the content; on return it survives a power cut."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        arriving = self._incoming / secrets.token_hex(8)
        try:
            digest, size = hashlib.sha256(), 0
            with arriving.open("xb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                file.flush()
                os.fsync(file.fileno())
            stored = Stored(digest.hexdigest(), size, path_of(digest.hexdigest(), suffix))
            target = self.directory / stored.path
            self._make_durable_directory(target.parent)
            # Also over one that is there: it might have been damaged since.
            os.replace(arriving, target)
            _sync(target.parent)
        finally:
            arriving.unlink(missing_ok=True)
        return stored

    def check_writable(self) -> None:
        """Raise OSError unless the store can be listed and written."""
        os.listdir(self.directory)
        probe = self._incoming / f"probe-{secrets.token_hex(4)}"
        self._incoming.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()

    def clear_incoming(self) -> None:
        """Remove what an interrupted upload left."""
        if self._incoming.is_dir():
            for leftover in self._incoming.iterdir():
                leftover.unlink(missing_ok=True)

    def _make_durable_directory(self, directory: Path) -> None:
        missing = []
        while not directory.exists():
            missing.append(directory)
            directory = directory.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync(new.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
