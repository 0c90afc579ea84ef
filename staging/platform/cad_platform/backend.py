"""The backend: users, projects, drawings, search and the admin dashboard.

An acknowledged upload is on disk, synced, and its row is committed.
"""

from __future__ import annotations

import html
import json
import logging
import secrets
import shutil
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import psycopg
import redis
from fastapi import Depends, FastAPI, Form, Header, HTTPException, Query, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from .database import Database
from .passwords import matches
from .settings import settings
from .storage import FORMATS, Store
from .worker import index_drawing, index_what_is_missing

log = logging.getLogger("cad.backend")

SESSION_SECONDS = 24 * 3600

database = Database(settings(), application_name="cad-backend")
store = Store(settings().path("FILES"), settings().path("INCOMING"))
sessions = redis.Redis.from_url(
    settings().redis_url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True
)


@asynccontextmanager
async def lifespan(_: FastAPI):
    store.clear_incoming()
    # The queue lies in Redis and may be lost; what is not indexed is known from the database.
    threading.Thread(target=_queue_what_is_missing, daemon=True).start()
    yield


app = FastAPI(title="CAD AI Platform", lifespan=lifespan)


class Credentials(BaseModel):
    email: str
    password: str


class NewProject(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    note: str = ""


class User(BaseModel):
    id: int
    email: str
    name: str
    is_admin: bool


@app.exception_handler(psycopg.OperationalError)
@app.exception_handler(redis.RedisError)
@app.exception_handler(OSError)
def unavailable(_, error: Exception) -> JSONResponse:
    log.warning("%s: %s", type(error).__name__, error)
    return JSONResponse({"detail": f"unavailable: {type(error).__name__}"}, status_code=503)


def current_user(authorization: Annotated[str, Header()] = "") -> User:
    token = authorization.removeprefix("Bearer ")
    found = sessions.get(f"session:{token}") if token else None
    if not found:
        raise HTTPException(401, "log in first")
    return User(**json.loads(found))


def admin_user(user: Annotated[User, Depends(current_user)]) -> User:
    if not user.is_admin:
        raise HTTPException(403, "for administrators")
    return user


SomeUser = Annotated[User, Depends(current_user)]
Admin = Annotated[User, Depends(admin_user)]


@app.post("/auth/login")
def login(credentials: Credentials) -> dict:
    with database.transaction() as t:
        row = t.execute("SELECT * FROM users WHERE email = %s", [credentials.email]).fetchone()
    if row is None or not matches(credentials.password, row["password_hash"]):
        raise HTTPException(401, "wrong address or password")
    token = secrets.token_urlsafe(24)
    user = User(**{key: row[key] for key in User.model_fields})
    sessions.set(f"session:{token}", user.model_dump_json(), ex=SESSION_SECONDS)
    return {"token": token, "user": user}


@app.get("/me")
def me(user: SomeUser) -> User:
    return user


@app.post("/projects", status_code=201)
def create_project(project: NewProject, user: SomeUser) -> dict:
    with database.transaction() as t:
        return t.execute(
            "INSERT INTO projects (owner_id, name, note) VALUES (%s, %s, %s) RETURNING id, name",
            [user.id, project.name, project.note],
        ).fetchone()


@app.get("/projects/{project_id}")
def read_project(project_id: int, _: SomeUser) -> dict:
    with database.transaction() as t:
        row = t.execute(
            "SELECT id, name, note, created_at FROM projects WHERE id = %s", [project_id]
        ).fetchone()
    return _found(row)


@app.post("/files", status_code=201)
def upload(
    file: UploadFile, user: SomeUser, project_id: Annotated[int | None, Form()] = None
) -> dict:
    name = Path(file.filename or "unnamed").name
    suffix = Path(name).suffix.lower()
    if suffix not in FORMATS:
        raise HTTPException(415, f"a drawing ends with one of {', '.join(FORMATS)}")
    if not file.size:
        raise HTTPException(422, "an empty file is no drawing")
    stored = store.save(file.file, suffix)
    with database.transaction() as t:
        row = t.execute(
            "INSERT INTO drawings (owner_id, project_id, name, sha256, bytes, path)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            [user.id, project_id, name, stored.sha256, stored.bytes, stored.path],
        ).fetchone()
    _queue(row["id"])
    return {"id": row["id"], "name": name, "sha256": stored.sha256, "bytes": stored.bytes}


@app.get("/files")
def list_files(
    _: SomeUser, limit: Annotated[int, Query(ge=1, le=1000)] = 100, after: int = 0
) -> dict:
    with database.transaction() as t:
        rows = t.execute(
            "SELECT id, name, sha256, bytes, created_at FROM drawings"
            " WHERE id > %s ORDER BY id LIMIT %s",
            [after, limit],
        ).fetchall()
        total = t.execute("SELECT count(*) AS n FROM drawings").fetchone()["n"]
    return {"total": total, "files": rows}


@app.get("/files/{drawing_id}/content")
def download(drawing_id: int, _: SomeUser) -> FileResponse:
    with database.transaction() as t:
        row = t.execute("SELECT name, path FROM drawings WHERE id = %s", [drawing_id]).fetchone()
    path = store.directory / _found(row)["path"]
    if not path.is_file():
        raise HTTPException(500, f"the content of drawing {drawing_id} is missing")
    return FileResponse(path, filename=row["name"], media_type="application/octet-stream")


@app.delete("/files/{drawing_id}", status_code=204, response_model=None)
def remove(drawing_id: int, user: SomeUser) -> None:
    with database.transaction() as t:
        row = t.execute(
            "SELECT path, owner_id FROM drawings WHERE id = %s FOR UPDATE", [drawing_id]
        ).fetchone()
        if _found(row)["owner_id"] != user.id and not user.is_admin:
            raise HTTPException(403, "it is somebody else's")
        for table in ("ai_results", "drawing_index"):
            t.execute(f"DELETE FROM {table} WHERE drawing_id = %s", [drawing_id])
        t.execute("DELETE FROM drawings WHERE id = %s", [drawing_id])
        shared = t.execute(
            "SELECT 1 FROM drawings WHERE path = %s LIMIT 1", [row["path"]]
        ).fetchone()
    if not shared:
        (store.directory / row["path"]).unlink(missing_ok=True)


@app.get("/search")
def search(_: SomeUser, q: Annotated[str, Query(min_length=1)]) -> dict:
    with database.transaction() as t:
        rows = t.execute(
            "SELECT d.id, d.name, d.sha256, i.format, i.entities, i.layers"
            " FROM drawing_index i JOIN drawings d ON d.id = i.drawing_id"
            " WHERE i.words @@ plainto_tsquery('simple', %s) ORDER BY d.id LIMIT 50",
            [q],
        ).fetchall()
    return {"query": q, "results": rows}


_COUNTS = """
SELECT (SELECT count(*) FROM users) AS users, (SELECT count(*) FROM projects) AS projects,
       (SELECT count(*) FROM drawings) AS drawings,
       (SELECT count(*) FROM drawing_index) AS indexed_drawings,
       (SELECT coalesce(sum(bytes), 0) FROM drawings)::bigint AS drawing_bytes,
       pg_database_size(current_database()) AS database_bytes
"""


@app.get("/admin/stats")
def stats(_: Admin) -> dict:
    with database.transaction() as t:
        counts = t.execute(_COUNTS).fetchone()
    return {**counts, "free_bytes": shutil.disk_usage(store.directory).free}


@app.get("/admin")
def dashboard(admin: Admin) -> HTMLResponse:
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{value}</td></tr>"
        for key, value in stats(admin).items()
    )
    return HTMLResponse(
        "<!doctype html><html lang=en><title>CAD AI Platform: administration</title>"
        f"<h1>Administration</h1><p>{html.escape(admin.name)}</p><table>{rows}</table></html>"
    )


@app.get("/health")
def health() -> JSONResponse:
    def ask_database() -> None:
        with database.transaction() as t:
            # Of every table, so that one that was dropped or cannot be read shows.
            for table in ("users", "projects", "drawings", "drawing_index", "ai_results"):
                t.execute(f"SELECT 1 FROM {table} LIMIT 1")

    parts, began = {}, time.monotonic()
    for name, ask in (
        ("database", ask_database),
        ("redis", sessions.ping),
        ("storage", store.check_writable),
    ):
        try:
            ask()
            parts[name] = "ok"
        except Exception as error:
            # Whatever it is: this endpoint reports, and must not fall over itself.
            parts[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    good = all(state == "ok" for state in parts.values())
    return JSONResponse(
        {
            "status": "ok" if good else "failing",
            "parts": parts,
            "seconds": round(time.monotonic() - began, 4),
        },
        status_code=200 if good else 503,
    )


def _found(row: dict | None) -> dict:
    if row is None:
        raise HTTPException(404, "there is none")
    return row


def _queue(drawing_id: int) -> None:
    try:
        index_drawing.apply_async([drawing_id], retry=False)
    except Exception as error:
        # The upload is acknowledged all the same: the next start queues it again.
        log.warning("Drawing %d is not queued: %s", drawing_id, error)


def _queue_what_is_missing() -> None:
    for _ in range(60):
        try:
            index_what_is_missing.apply_async(retry=False)
            return
        except Exception as error:
            log.warning("The queue is not there yet: %s", error)
            time.sleep(2)
