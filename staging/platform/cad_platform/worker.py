"""The worker: puts uploaded drawings into the search table and lets a model name their kind."""

from __future__ import annotations

import logging

import celery
import psycopg

from .database import Database
from .drawings import Contents, UnreadableDrawing, read_drawing
from .indexing import write_index
from .models import ModelDamaged, Models
from .settings import settings

log = logging.getLogger("cad.worker")

app = celery.Celery("cad", broker=settings().redis_url)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    # Redis and the database may be away for as long as a recovery takes.
    broker_connection_max_retries=None,
    broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 3},
)

database = Database(settings(), application_name="cad-worker")
models = Models(settings().path("MODELS"), ("default",))


@app.task(autoretry_for=(psycopg.OperationalError, OSError), retry_backoff=2, max_retries=20)
def index_drawing(drawing_id: int) -> None:
    with database.transaction() as t:
        row = t.execute("SELECT name, path FROM drawings WHERE id = %s", [drawing_id]).fetchone()
    if row is None:
        return  # the database was set back since
    try:
        contents = read_drawing(settings().path("FILES") / row["path"])
    except UnreadableDrawing as error:
        log.warning("Drawing %d is not indexed: %s", drawing_id, error)
        return
    with database.transaction() as t:
        if write_index(t, drawing_id, row["name"], contents):
            _name_its_kind(t, drawing_id, contents)


@app.task(autoretry_for=(psycopg.OperationalError,), retry_backoff=2, max_retries=20)
def index_what_is_missing() -> None:
    with database.transaction() as t:
        missing = t.execute(
            "SELECT d.id FROM drawings d LEFT JOIN drawing_index i ON i.drawing_id = d.id"
            " WHERE i.drawing_id IS NULL ORDER BY d.id"
        ).fetchall()
    for row in missing:
        index_drawing.delay(row["id"])


def _name_its_kind(connection: psycopg.Connection, drawing_id: int, contents: Contents) -> None:
    try:
        model = models.get("default")
    except ModelDamaged as error:
        log.warning("Drawing %d stays without a kind: %s", drawing_id, error)
        return
    answer = model.answer(contents.text)
    connection.execute(
        "INSERT INTO ai_results (drawing_id, model_id, answer, score) VALUES (%s, %s, %s, %s)",
        [drawing_id, model.id, answer.label, answer.score],
    )
