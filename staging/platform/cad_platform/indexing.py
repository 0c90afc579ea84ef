"""The search table: one row a drawing."""

from __future__ import annotations

import psycopg

from .drawings import Contents


def write_index(
    connection: psycopg.Connection, drawing_id: int, name: str, contents: Contents
) -> bool:
    """Return whether it was not there before."""
    words = " ".join([name.rsplit(".", 1)[0], contents.text, *contents.layers])
    return (
        connection.execute(
            "INSERT INTO drawing_index (drawing_id, format, entities, layers, words)"
            " VALUES (%s, %s, %s, %s, to_tsvector('simple', %s)) ON CONFLICT DO NOTHING",
            [
                drawing_id,
                contents.format,
                contents.entities,
                list(contents.layers),
                words.replace("-", " ").replace("_", " "),
            ],
        ).rowcount
        == 1
    )
