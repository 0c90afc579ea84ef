"""Restored files, models and configuration: compared with their facts, and parsed."""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError

from lifeboat.core.errors import SettingsError, VerificationFailed
from lifeboat.core.points import Asset, DirectoryFacts, Facts
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import filesystem

_NAMED = 5  # how many of many faults a message names
_SETTINGS_NAME = "lifeboat.yaml"


def question(settings: Settings, facts: Facts, place: Path) -> None:
    """Compare what was restored to `place/<name>` with its facts; parse what is configuration.

    Raises VerificationFailed, naming the first things that are wrong.
    """
    tolerance = settings.checks.file_counts.tolerance_percent
    wrong = [
        fault
        for name, expected in facts.directories.items()
        for fault in _faults(name, place / name, expected, tolerance)
    ]
    if facts.asset is Asset.CONFIG:
        told = facts.directories.get(_SETTINGS_NAME)
        wrong += _unparsable(place, lay_in=Path(told.path).parent if told else place)
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise VerificationFailed(f"Testing {facts.point}: {'; '.join(wrong[:_NAMED])}{more}.")


def _faults(name: str, path: Path, expected: DirectoryFacts, tolerance_percent: float) -> list[str]:
    if path.is_symlink():
        # Followed, it would lead to what is live here, which is as it should be.
        return [f"{name}: a symbolic link, and nothing of what it pointed to"]
    files, size = _size(path)
    # Files may be deleted between the count and the end of the backup.
    share = 1 - tolerance_percent / 100
    wrong = []
    if files < int(expected.files * share):
        wrong.append(f"{name}: {files} files, not {expected.files}")
    if size < int(expected.bytes * share):
        wrong.append(f"{name}: {size} bytes, not {expected.bytes}")
    there = filesystem.digests(path) if expected.digests and path.exists() else {}
    return wrong + [
        f"{name}/{file} is {'altered' if file in there else 'missing'}"
        for file, digest in expected.digests.items()
        if there.get(file) != digest
    ]


def _size(path: Path) -> tuple[int, int]:
    if path.is_dir():
        return filesystem.tree_size(path)
    return (1, path.stat().st_size) if path.is_file() else (0, 0)


# --- the forms of configuration -------------------------------------------------------------

_LINE_OF_ENV = re.compile(r"^\s*(export\s+)?[A-Za-z_][\w.-]*\s*(=|$)")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def _parse_yaml(text: str) -> object:
    # Composed and not constructed: `!vault` and `!reset` are for the programs that know them.
    return list(YAML(typ="safe", pure=True).compose_all(text))


def _parse_env(text: str) -> None:
    """Raise ValueError unless it is KEY=VALUE lines, as Docker Compose reads them."""
    quote = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if quote:
            quote = "" if line.rstrip().endswith(quote) else quote
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not _LINE_OF_ENV.match(line):
            raise ValueError(f"line {number} is not KEY=VALUE")
        value = line.partition("=")[2].strip()
        if value[:1] in ("'", '"') and value.count(value[0]) == 1:
            quote = value[0]


def _parse_pem(text: str) -> None:
    """Raise ValueError unless each block of it ends, and is as long as it says."""
    blocks = list(_PEM.finditer(text))
    if len(blocks) != text.count("-----BEGIN "):
        raise ValueError("a block of it does not end")
    for kind, body in (block.groups() for block in blocks):
        if ":" in body or "OPENSSH" in kind:
            continue  # encrypted, with headers; or of another form
        try:
            data = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"{kind}: {error}") from error
        if len(data) != _der_length(data):
            raise ValueError(f"{kind}: it is cut short")


def _der_length(data: bytes) -> int:
    """How long a DER element says that it is, with its own head."""
    if len(data) < 2:
        return -1
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


_PARSERS: Mapping[str, Callable[[str], object]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".env": _parse_env,
    ".pem": _parse_pem,
    ".crt": _parse_pem,
    ".key": _parse_pem,
}
_TEXT = {".yaml", ".yml", ".json", ".toml", ".env"}
# Of these no two programs agree on the form; but none of them is empty.
_NEVER_EMPTY = {*_PARSERS, ".cfg", ".cnf", ".conf", ".ini", ".properties"}
_NOTHING = b" \t\r\n\0"  # a crash leaves zeros where a file should be


def _unparsable(root: Path, *, lay_in: Path) -> list[str]:
    """Every file whose form is known must have it, and `lifeboat.yaml` must be settings.

    It is read as it lay in the directory `lay_in`: here, in the vault, its own paths would overlap.
    """
    wrong = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        fault = _fault_of_form(path)
        if fault:
            wrong.append(f"{path.relative_to(root)} {fault}")
    settings_file = root / _SETTINGS_NAME
    if not settings_file.is_file():
        wrong.append(f"{_SETTINGS_NAME} is not in it, so that a lost server can't be rebuilt")
    elif not any(line.startswith(f"{_SETTINGS_NAME} ") for line in wrong):
        try:
            load_settings(settings_file, directory=lay_in)
        except SettingsError as error:
            wrong.append(f"{_SETTINGS_NAME} is not valid ({error.message.rstrip('.')})")
    return wrong


def _fault_of_form(path: Path) -> str:
    """What is wrong with a configuration file; empty: nothing, or its form is not known."""
    # `.env` and `.env.production` have no suffix, or another one.
    kind = ".env" if path.name == ".env" or path.name.startswith(".env.") else path.suffix
    if kind not in _NEVER_EMPTY:
        return ""
    data = path.read_bytes()
    if not data.strip(_NOTHING):
        return "is empty" if not data.strip(b" \t\r\n") else "is all zeros"
    try:
        _PARSERS.get(kind, str)(data.decode("utf-8-sig" if kind in _TEXT else "latin-1"))
    except json.JSONDecodeError as error:
        return f"can't be parsed ({error.msg}, line {error.lineno})"
    except MarkedYAMLError as error:
        # Its own words quote the line, which may hold a secret.
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"can't be parsed ({error.problem}{where})"
    except YAMLError as error:
        return f"can't be parsed ({type(error).__name__})"
    except ValueError as error:
        return f"can't be parsed ({error})"
    return ""
