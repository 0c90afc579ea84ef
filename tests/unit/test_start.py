"""Commands start at once: what costs time to import is imported by what uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_HEAVY = ("boto3", "botocore", "cryptography", "docker", "httpx", "prefect", "redis", "reportlab")
_ALONE = "from tasks import orchestration; orchestration.run_alone()"


def imported_by(code: str, names: tuple[str, ...]) -> list[str]:
    asked = f"import sys; {code}; print(*(n for n in {names!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_help_waits_for_no_library_and_no_model() -> None:
    names = (*_HEAVY, "jinja2", "pydantic", "psycopg", "rich", "yaml", "lifeboat.settings", "tasks")
    assert imported_by("import lifeboat.cli", names) == []
    # So that a name that nothing imports any more is noticed.
    assert imported_by("import lifeboat.cli, tasks.backup", ("pydantic", "tasks"))


@pytest.mark.parametrize("flow", ["recover_database", "recover_files", "recover_server"])
def test_a_recovery_alone_waits_for_no_library_that_it_may_not_need(flow: str) -> None:
    assert imported_by(f"{_ALONE}; import flows.{flow}", (*_HEAVY, "rich")) == []
