"""Settings of every service: KEY=VALUE in .env.production, paths relative to that file.

In a container they are the environment instead, which Compose fills in from the same file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What the services need to know, and nothing that only one of them does."""

    site: Path
    values: dict[str, str]

    def text(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise SystemExit(f"{self.site / '.env.production'} has no {name}.") from None

    def port(self, name: str) -> int:
        return int(self.text(f"{name}_PORT"))

    def host(self, name: str) -> str:
        return self.values.get(f"{name}_HOST", "127.0.0.1")

    @property
    def bind_address(self) -> str:
        """Where the services listen: on this host alone, or inside of their container."""
        return self.values.get("BIND_ADDRESS", "127.0.0.1")

    def path(self, name: str) -> Path:
        return self.site / self.text(f"{name}_DIRECTORY")

    @property
    def database(self) -> str:
        """The application's connection string, without its password (see `PGPASSWORD`)."""
        where = f"host={self.host('POSTGRES')} port={self.port('POSTGRES')}"
        return f"{where} dbname=cad user=cad connect_timeout=3"

    @property
    def _redis(self) -> str:
        return f"{self.host('REDIS')}:{self.port('REDIS')}"

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.text('REDIS_PASSWORD')}@{self._redis}/0"


def read_settings(site: Path) -> Settings:
    """Read a site's .env.production, or the environment where there is none."""
    if not (site / ".env.production").exists():
        return Settings(site.resolve(), dict(os.environ))
    lines = (site / ".env.production").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return Settings(site.resolve(), {key.strip(): value.strip() for key, value in pairs})


@cache
def settings() -> Settings:
    """The settings of the site in CAD_SITE, which `serve` sets."""
    return read_settings(Path(os.environ["CAD_SITE"]))
