"""Reading drawings: what is in a DXF, STEP or STL file that somebody may search for."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path


class UnreadableDrawing(ValueError):
    """The file is not what its name says."""


@dataclass(frozen=True)
class Contents:
    format: str
    entities: int
    layers: tuple[str, ...]
    text: str


def read_drawing(path: Path) -> Contents:
    """Raise UnreadableDrawing if the file is not a whole, valid one of its format."""
    readers = {".dxf": _read_dxf, ".step": _read_step, ".stl": _read_stl}
    try:
        return readers[path.suffix](path.read_bytes())
    except KeyError:
        raise UnreadableDrawing(f"{path.name}: unknown format") from None
    except UnreadableDrawing as error:
        raise UnreadableDrawing(f"{path.name}: {error}") from error


def _read_dxf(content: bytes) -> Contents:
    # Here, because it takes seconds to import and only the worker needs it.
    import ezdxf

    try:
        document = ezdxf.read(io.StringIO(content.decode("utf-8", errors="surrogateescape")))
    except (ezdxf.DXFError, OSError, ValueError) as error:
        raise UnreadableDrawing(f"not a DXF file: {error}") from error
    space = document.modelspace()
    words = [entity.dxf.text for entity in space.query("TEXT")]
    layers = sorted({entity.dxf.layer for entity in space})
    return Contents("dxf", len(space), tuple(layers), " ".join(words))


def _read_step(content: bytes) -> Contents:
    """ISO 10303-21: a header and a data section between two magic lines."""
    text = content.decode("ascii", errors="replace")
    if not text.startswith("ISO-10303-21;") or not text.rstrip().endswith("END-ISO-10303-21;"):
        raise UnreadableDrawing("not a whole ISO 10303-21 file")
    for section in ("HEADER;", "DATA;", "ENDSEC;", "FILE_SCHEMA("):
        if section not in text:
            raise UnreadableDrawing(f"no {section}")
    instances = re.findall(r"^#(\d+)\s*=\s*([A-Z0-9_]*)", text, re.MULTILINE)
    defined = {number for number, _ in instances}
    dangling = set(re.findall(r"(?<!^)#(\d+)", text, re.MULTILINE)) - defined
    if not instances or dangling:
        raise UnreadableDrawing(f"refers to undefined instances {sorted(dangling)[:3]}")
    names = re.findall(r"'([^']*)'", text)
    return Contents("step", len(instances), (), " ".join(names))


def _read_stl(content: bytes) -> Contents:
    if content.startswith(b"solid ") and content.rstrip().endswith(b"endsolid"):
        raise UnreadableDrawing("the solid's end has no name")
    if content.startswith(b"solid ") and b"\nendsolid " in content:
        return _read_ascii_stl(content)
    if len(content) < 84:
        raise UnreadableDrawing("shorter than the header of a binary STL file")
    (triangles,) = struct.unpack_from("<I", content, 80)
    if len(content) != 84 + 50 * triangles:
        raise UnreadableDrawing(f"{len(content)} bytes do not hold {triangles} triangles")
    header = content[:80].rstrip(b"\0 ").decode("ascii", errors="replace")
    return Contents("stl", triangles, (), header)


def _read_ascii_stl(content: bytes) -> Contents:
    text = content.decode("ascii", errors="replace")
    name = text.split("\n", 1)[0].removeprefix("solid ").strip()
    triangles = text.count("facet normal")
    if text.count("vertex ") != 3 * triangles or not text.rstrip().endswith(f"endsolid {name}"):
        raise UnreadableDrawing("not a whole ASCII STL file")
    return Contents("stl", triangles, (), name)
