"""Sample data: valid CAD files, models, users, projects, and as many database bytes as wanted."""

from __future__ import annotations

import io
import math
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from staging.platform.cad_platform.drawings import read_drawing
from staging.platform.cad_platform.indexing import write_index
from staging.platform.cad_platform.models import SUFFIX, load_model, make_model
from staging.platform.cad_platform.passwords import hash_password
from staging.platform.cad_platform.storage import Store

FILES_AT_SCALE_1 = 240
DATABASE_BYTES_AT_SCALE_1 = 24_000_000
KNOWN_QUERY = "test query"
SEARCH_WORD = "flange"

_PARTS = ("flange", "bracket", "gear", "housing", "shaft", "plate", "coupling", "manifold")
_LAYERS = ("OUTLINE", "HIDDEN", "DIMENSIONS", "HOLES", "NOTES")
_USERS = ("ada", "bela", "chiara", "dmitri", "emeka")
_PAYLOAD_BYTES = 1900
"""Four rows a page."""


@dataclass(frozen=True)
class Drawing:
    name: str
    content: bytes


@dataclass(frozen=True)
class Seeded:
    """What a drill may rely on to be there."""

    users: int
    projects: int
    drawings: int
    models: tuple[str, ...]
    known_answers: dict[str, str]
    """Model to its answer to KNOWN_QUERY."""


def make_drawing(number: int, kind: str, *, salt: str = "") -> Drawing:
    """Return the drawing of that number: always the same for the same number, kind and salt.

    Kinds: dxf, step, stl (binary for even numbers, ASCII for odd ones). Sizes vary.
    """
    rng = random.Random(f"{salt}/{kind}/{number}")
    part = _PARTS[number % len(_PARTS)]
    title = f"{part}-{salt}{number:05d}"
    make = {"dxf": _dxf, "step": _step, "stl": _stl_ascii if number % 2 else _stl_binary}[kind]
    return Drawing(f"{title}.{kind}", make(title, rng))


def make_drawings(count: int) -> Iterator[Drawing]:
    for number in range(count):
        yield make_drawing(number, ("dxf", "step", "stl")[number % 3])


def make_models(directory: Path, *, scale: float = 1.0) -> dict[str, str]:
    """Write the two models and return each one's answer to KNOWN_QUERY."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = max(256, int(8192 * scale))
    sizes = {"default": (_PARTS, rows), "tolerances": (("fine", "medium", "coarse"), rows // 2)}
    answers = {}
    for seed, (model_id, (labels, model_rows)) in enumerate(sizes.items()):
        path = directory / f"{model_id}{SUFFIX}"
        path.write_bytes(make_model(model_id, labels, seed=seed, rows=model_rows))
        answers[model_id] = load_model(path).answer(KNOWN_QUERY).label
    return answers


def seed_site(
    connection: psycopg.Connection,
    store: Store,
    models: Path,
    *,
    people: dict[str, str],
    admin: str,
    scale: float = 1.0,
    database_bytes: int | None = None,
) -> Seeded:
    """Fill an empty schema and empty directories.

    `people` are addresses and passwords of those who can log in; `admin` is one of them.
    """
    files = max(6, round(FILES_AT_SCALE_1 * scale))
    projects = max(5, files // 4)
    people = people | {f"{name}@cad.example.test": name for name in _USERS}
    with connection.transaction():
        for email, password in people.items():
            connection.execute(
                "INSERT INTO users (email, name, password_hash, is_admin) VALUES (%s, %s, %s, %s)",
                [email, email.split("@")[0].title(), hash_password(password), email == admin],
            )
        connection.execute(
            "INSERT INTO projects (owner_id, name, note)"
            " SELECT 1 + i %% %s, 'project-' || i, 'seeded' FROM generate_series(1, %s) i",
            [len(people), projects],
        )
        for number, drawing in enumerate(make_drawings(files)):
            suffix = Path(drawing.name).suffix
            stored = store.save(io.BytesIO(drawing.content), suffix)
            row = connection.execute(
                "INSERT INTO drawings (owner_id, project_id, name, sha256, bytes, path)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                [
                    1 + number % len(people),
                    1 + number % projects,
                    drawing.name,
                    stored.sha256,
                    stored.bytes,
                    stored.path,
                ],
            ).fetchone()
            # Read back as the worker does, which is also the proof that it is valid.
            contents = read_drawing(store.directory / stored.path)
            write_index(connection, row[0], drawing.name, contents)
    wanted = int(DATABASE_BYTES_AT_SCALE_1 * scale) if database_bytes is None else database_bytes
    _fill(connection, wanted, projects)
    answers = make_models(models, scale=scale)
    return Seeded(len(people), projects, files, tuple(answers), answers)


def _fill(connection: psycopg.Connection, wanted_bytes: int, projects: int) -> None:
    """Grow the database to about so many bytes, with content that does not compress."""
    (there,) = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    rng = random.Random(0)
    rows = max(100, (wanted_bytes - there) // 2048)
    with connection.transaction(), connection.cursor() as cursor:
        # In the transaction that empties it a table is written without WAL at level minimal.
        cursor.execute("TRUNCATE project_revisions")
        with cursor.copy(
            "COPY project_revisions (id, project_id, payload) FROM STDIN (FORMAT binary)"
        ) as copy:
            copy.set_types(["int8", "int8", "bytea"])
            for number in range(rows):
                copy.write_row((number + 1, 1 + number % projects, rng.randbytes(_PAYLOAD_BYTES)))
    connection.execute("ALTER TABLE project_revisions ADD PRIMARY KEY (id)")
    connection.execute("ANALYZE")


def _dxf(title: str, rng: random.Random) -> bytes:
    # Here, because it takes a second or more to import and the load generator does without.
    import ezdxf

    document = ezdxf.new("R2010")
    for colour, layer in enumerate(_LAYERS, start=1):
        document.layers.add(layer, color=colour)
    space = document.modelspace()
    for _ in range(rng.randint(10, 120)):
        x, y, radius = rng.uniform(0, 500), rng.uniform(0, 300), rng.uniform(1, 40)
        space.add_line((x, y), (x + radius, y), dxfattribs={"layer": "OUTLINE"})
        space.add_circle((x, y), radius, dxfattribs={"layer": rng.choice(_LAYERS)})
    space.add_text(title.replace("-", " "), dxfattribs={"layer": "NOTES"})
    text = io.StringIO()
    document.write(text)
    return text.getvalue().encode("utf-8")


def _step(title: str, rng: random.Random) -> bytes:
    """A product with a polyline, AP214, by ISO 10303-21."""
    points = rng.randint(20, 600)
    data = [
        "#1=APPLICATION_CONTEXT('automotive design');",
        "#2=APPLICATION_PROTOCOL_DEFINITION('international standard','automotive_design',2000,#1);",
        "#3=PRODUCT_CONTEXT('',#1,'mechanical');",
        f"#4=PRODUCT('{title}','{title.replace('-', ' ')}','',(#3));",
    ]
    for number in range(points):
        x, y, z = (rng.uniform(-100, 100) for _ in range(3))
        data.append(f"#{10 + number}=CARTESIAN_POINT('',({x:.6f},{y:.6f},{z:.6f}));")
    listed = ",".join(f"#{10 + number}" for number in range(points))
    data.append(f"#{10 + points}=POLYLINE('outline',({listed}));")
    head = [
        "ISO-10303-21;",
        "HEADER;",
        "FILE_DESCRIPTION(('sample part'),'2;1');",
        f"FILE_NAME('{title}.step','2026-01-01T00:00:00',(''),(''),'','staging','');",
        "FILE_SCHEMA(('AUTOMOTIVE_DESIGN { 1 0 10303 214 1 1 1 1 }'));",
        "ENDSEC;",
        "DATA;",
    ]
    return "\n".join([*head, *data, "ENDSEC;", "END-ISO-10303-21;", ""]).encode("ascii")


_Vector = tuple[float, float, float]


def _triangles(rng: random.Random) -> list[tuple[_Vector, _Vector, _Vector, _Vector]]:
    """A closed fan around an axis, as normal and three corners."""
    steps, radius, height = rng.randint(8, 400), rng.uniform(5, 50), rng.uniform(5, 50)
    ring = [
        (
            radius * math.cos(2 * math.pi * i / steps),
            radius * math.sin(2 * math.pi * i / steps),
            0.0,
        )
        for i in range(steps)
    ]
    found = []
    for tip, turn in (((0.0, 0.0, height), 1), ((0.0, 0.0, 0.0), -1)):
        for i in range(steps):
            a, b = (ring[i], ring[(i + 1) % steps])[::turn]
            found.append((_normal(a, b, tip), a, b, tip))
    return found


def _normal(a: _Vector, b: _Vector, c: _Vector) -> _Vector:
    u = [b[i] - a[i] for i in range(3)]
    v = [c[i] - a[i] for i in range(3)]
    n = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    length = math.sqrt(sum(x * x for x in n)) or 1.0
    return (n[0] / length, n[1] / length, n[2] / length)


def _stl_binary(title: str, rng: random.Random) -> bytes:
    # The header must not begin with "solid": that is how readers tell the two kinds apart.
    triangles = _triangles(rng)
    head = f"binary STL {title.replace('-', ' ')}".encode().ljust(80, b" ")
    body = (struct.pack("<12fH", *(x for v in t for x in v), 0) for t in triangles)
    return head + struct.pack("<I", len(triangles)) + b"".join(body)


def _stl_ascii(title: str, rng: random.Random) -> bytes:
    lines = [f"solid {title.replace('-', ' ')}"]
    for normal, *corners in _triangles(rng):
        lines.append("facet normal {:.6e} {:.6e} {:.6e}".format(*normal))
        lines.append(" outer loop")
        lines += ["  vertex {:.6e} {:.6e} {:.6e}".format(*corner) for corner in corners]
        lines += [" endloop", "endfacet"]
    lines += [f"endsolid {title.replace('-', ' ')}", ""]
    return "\n".join(lines).encode("ascii")
