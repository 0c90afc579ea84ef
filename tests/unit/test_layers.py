"""Who may import whom: the layers of the house, as contracts in pyproject.toml.

Each rule is shown twice: kept by the code as it is, and broken by a line that breaks it.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("flows", "lifeboat", "tasks")
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"

# A file that breaks exactly one contract each (the contracts' names begin like this).
OFFENDERS = {
    "lifeboat.core decides": ("lifeboat/core/offender.py", "import time"),
    "lifeboat.tools and lifeboat.settings know": ("lifeboat/tools/offender_a.py", "import prefect"),
    "lifeboat.tools get their values": (
        "lifeboat/tools/offender_b.py",
        "from lifeboat import settings",
    ),
    "No tool imports another tool": (
        "lifeboat/tools/offender_c.py",
        "from lifeboat.tools import offender_a",
    ),
    "lifeboat.tools.process is the only": ("lifeboat/offender.py", "import subprocess"),
    "tasks know no flow": ("tasks/offender.py", "import boto3"),
    "flows say what happens": ("flows/offender.py", "from lifeboat.tools import process"),
}

# settings reads the environment; process hands it on to the programs it starts.
ENVIRONMENT_READERS = {"lifeboat/settings/environment.py", "lifeboat/tools/process.py"}


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_every_layer_keeps_its_contracts() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_broken_contract_is_found(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for layer in LAYERS:
        shutil.copytree(
            ROOT / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path, line in OFFENDERS.values():
        (tmp_path / path).write_text(f"{line}\n")

    result = lint_imports(tmp_path)

    assert result.returncode == 1, result.stdout + result.stderr
    broken = {
        start
        for line in result.stdout.splitlines()
        for start in OFFENDERS
        if line.startswith(start) and " BROKEN" in line
    }
    assert broken == set(OFFENDERS)


def environment_reads(tree: ast.AST) -> Iterator[str]:
    """Given a module's syntax tree, yield where it reads the environment."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in {"environ", "environb", "getenv"}
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            for alias in node.names:
                if alias.name in {"environ", "environb", "getenv"}:
                    yield f"line {node.lineno}: from os import {alias.name}"


def clock_reads(tree: ast.AST) -> Iterator[str]:
    """Given a module's syntax tree, yield where it asks what time it is."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"now", "today", "utcnow"}
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def modules(*directories: str) -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for directory in directories
        for path in (ROOT / directory).rglob("*.py")
    )


@pytest.mark.parametrize("module", sorted({*modules(*LAYERS)} - ENVIRONMENT_READERS))
def test_only_settings_read_the_environment(module: str) -> None:
    assert list(environment_reads(ast.parse((ROOT / module).read_text()))) == []


@pytest.mark.parametrize("module", modules("lifeboat/core"))
def test_core_is_told_the_time(module: str) -> None:
    assert list(clock_reads(ast.parse((ROOT / module).read_text()))) == []


@pytest.mark.parametrize(
    "line", ["os.environ['A']", "os.getenv('A')", "from os import environ", "os.environ.get('A')"]
)
def test_a_read_of_the_environment_is_found(line: str) -> None:
    assert list(environment_reads(ast.parse(line)))


@pytest.mark.parametrize("line", ["datetime.now(tz)", "date.today()", "datetime.utcnow()"])
def test_a_read_of_the_clock_is_found(line: str) -> None:
    assert list(clock_reads(ast.parse(line)))
