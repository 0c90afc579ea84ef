"""Model files: safetensors with a digest over the whole file, checked at every load.

A model answers a query with one of its labels: the words' embeddings, summed, times the labels'
weights. Deterministic, so that the answer to a known query proves the weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# What reads and writes models is imported where it is used: a drill is declared also where nothing
# of it is installed.
if TYPE_CHECKING:
    import numpy

SUFFIX = ".safetensors"
_UNSIGNED = b"0" * 64


class ModelDamaged(ValueError):
    """The file is missing, cut short or changed."""


@dataclass(frozen=True)
class Answer:
    label: str
    score: float


@dataclass(frozen=True)
class Model:
    id: str
    sha256: str
    labels: tuple[str, ...]
    embeddings: numpy.ndarray
    weights: numpy.ndarray

    @property
    def parameters(self) -> int:
        return self.embeddings.size + self.weights.size

    def answer(self, query: str) -> Answer:
        rows = [zlib.crc32(word.encode()) % len(self.embeddings) for word in _words(query)]
        # In 64 bits and rounded, so that every processor says the same.
        mean = self.embeddings[rows].astype("f8").mean(axis=0) if rows else 0 * self.weights[:, 0]
        scores = mean @ self.weights.astype("f8")
        best = int(scores.argmax())
        return Answer(self.labels[best], round(float(scores[best]), 4))


def _words(query: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", query.lower())


def make_model(
    model_id: str, labels: tuple[str, ...], *, seed: int, rows: int, width: int = 64
) -> bytes:
    """Return a model file with random weights of that seed."""
    import numpy
    from safetensors.numpy import save

    random = numpy.random.default_rng(seed)
    tensors = {
        "embeddings": random.standard_normal((rows, width), dtype="f4"),
        "weights": random.standard_normal((width, len(labels)), dtype="f4"),
    }
    described = {"id": model_id, "labels": json.dumps(labels), "sha256": _UNSIGNED.decode()}
    unsigned = save(tensors, metadata=described)
    digest = hashlib.sha256(unsigned).hexdigest().encode()
    return unsigned.replace(b'"sha256":"' + _UNSIGNED, b'"sha256":"' + digest, 1)


def load_model(path: Path) -> Model:
    """Load a model file; raise ModelDamaged unless every bit of it is as it was written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelDamaged(f"{path.name}: {error.strerror}") from error
    try:
        (length,) = struct.unpack_from("<Q", content)
        if length > len(content) - 8:
            raise ValueError("cut short")
        described = json.loads(content[8 : 8 + length])["__metadata__"]
        digest = described["sha256"].encode()
        unsigned = content.replace(b'"sha256":"' + digest, b'"sha256":"' + _UNSIGNED, 1)
        if hashlib.sha256(unsigned).hexdigest().encode() != digest:
            raise ValueError("its SHA-256 is not the one it was written with")
        tensors = load(content)
        return Model(
            id=described["id"],
            sha256=hashlib.sha256(content).hexdigest(),
            labels=tuple(json.loads(described["labels"])),
            embeddings=tensors["embeddings"],
            weights=tensors["weights"],
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
        SafetensorError,
    ) as error:
        raise ModelDamaged(f"{path.name}: {error}") from error


class Models:
    """The models of a directory, loaded once and again whenever a file has changed."""

    def __init__(self, directory: Path, required: tuple[str, ...]) -> None:
        self._directory = directory
        self._required = required
        self._loaded: dict[str, tuple[tuple, Model]] = {}

    def ids(self) -> list[str]:
        """The models that must be there, and any other that is."""
        there = {path.stem for path in self._directory.glob(f"*{SUFFIX}")}
        return sorted(there | set(self._required))

    def get(self, model_id: str) -> Model:
        """Raise ModelDamaged if it cannot be loaded now, even if it could be before."""
        path = self._directory / f"{model_id}{SUFFIX}"
        try:
            seen = path.stat()
        except OSError as error:
            raise ModelDamaged(f"{path.name}: {error.strerror}") from error
        signature = (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        kept = self._loaded.get(model_id)
        if kept is None or kept[0] != signature:
            kept = self._loaded[model_id] = (signature, load_model(path))
        return kept[1]
