"""The museum's reading room: photographs and letters, by file and by row of the catalogue."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Annotated

import psycopg
import uvicorn
from fastapi import FastAPI, Header, HTTPException, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel

ARCHIVE = Path("/archive")
STORES = ("photos", "letters")
PASSWORD = os.environ["READER_PASSWORD"]
TOKEN = hashlib.sha256(PASSWORD.encode()).hexdigest()

app = FastAPI()


class Card(BaseModel):
    password: str


def ask(text: str, *values: object) -> list[tuple]:
    with psycopg.connect(os.environ["DSN"], connect_timeout=3) as connection:
        cursor = connection.execute(text, values)
        return cursor.fetchall() if cursor.description else []


def known(token: str | None) -> None:
    if not hmac.compare_digest(token or "", f"Bearer {TOKEN}"):
        raise HTTPException(401)


@app.get("/health")
def health() -> dict:
    ask("SELECT 1")
    return {"open": True}


@app.post("/enter")
def enter(card: Card) -> dict:
    if not hmac.compare_digest(card.password, PASSWORD):
        raise HTTPException(401)
    return {"token": TOKEN}


@app.get("/desk")
def desk(authorization: Annotated[str | None, Header()] = None) -> dict:
    known(authorization)
    return {"reader": "known"}


@app.post("/items/{store}", status_code=201)
def add(
    store: str, file: UploadFile, authorization: Annotated[str | None, Header()] = None
) -> dict:
    known(authorization)
    if store not in STORES:
        raise HTTPException(404)
    data = file.file.read()
    digest = hashlib.sha256(data).hexdigest()
    path = ARCHIVE / store / f"{digest[:16]}-{Path(file.filename or 'item').name}"
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    [(number,)] = ask(
        "INSERT INTO items (store, title, path, sha256, bytes) VALUES (%s, %s, %s, %s, %s)"
        " RETURNING id",
        *(store, file.filename, path.name, digest, len(data)),
    )
    return {"id": number, "sha256": digest}


@app.get("/items/{number}")
def show(number: int, authorization: Annotated[str | None, Header()] = None) -> FileResponse:
    known(authorization)
    rows = ask("SELECT store, path FROM items WHERE id = %s", number)
    if not rows:
        raise HTTPException(404)
    return FileResponse(ARCHIVE / rows[0][0] / rows[0][1])


@app.delete("/items/{number}", status_code=204, response_model=None)
def remove(number: int, authorization: Annotated[str | None, Header()] = None) -> None:
    known(authorization)
    for store, path in ask("DELETE FROM items WHERE id = %s RETURNING store, path", number):
        (ARCHIVE / store / path).unlink(missing_ok=True)


@app.get("/find")
def find(title: str, authorization: Annotated[str | None, Header()] = None) -> dict:
    known(authorization)
    rows = ask(
        "SELECT id, title FROM items WHERE title ILIKE %s ORDER BY id LIMIT 20", f"%{title}%"
    )
    return {"found": [{"id": number, "title": text} for number, text in rows]}


@app.get("/hands")
def hands() -> list[dict]:
    """The handwritings that can be read, each from a file."""
    return [
        {"name": p.stem, "ready": p.stat().st_size > 0}
        for p in sorted((ARCHIVE / "hands").iterdir())
    ]


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=9000, log_level="warning")
