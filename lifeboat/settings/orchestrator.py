"""The section `orchestrator` of lifeboat.yaml: the database in which Prefect keeps its history."""

from __future__ import annotations

from pydantic import Field

from lifeboat.settings.base import Section, SitePath


class OrchestratorSettings(Section):
    """The PostgreSQL of the Prefect server: a server of its own, never the protected one."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Host of the server.")
    port: int = Field(default=5432, ge=1, le=65535, description="Port of the server.")
    name: str = Field(
        default="prefect",
        pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,39}$",
        description="Name of Prefect's database; a recovery renames it.",
    )
    user: str = Field(
        default="prefect",
        min_length=1,
        description="Role that owns it and has CREATEDB, with which Prefect logs in; its password "
        "is LIFEBOAT_ORCHESTRATOR_PASSWORD.",
    )
    bin_directory: SitePath | None = Field(
        default=None,
        description="Directory of pg_dump, pg_restore and initdb, of the server's major version or "
        "newer; default: those of `database.bin_directory`, or else those on PATH.",
    )
    every_seconds: float = Field(default=3600, gt=0, description="Between backups by the keeper.")
