"""Data integrity: tables, files, models, and what refers to what."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from lifeboat.core.points import Asset
from lifeboat.core.references import Referred
from lifeboat.tools import filesystem, postgres
from tasks import integrity
from tasks.checks.context import Context, Failed, Unknown, required
from tasks.trees import directories_of

_LOOKS_AGAIN = 3
_LOOK_AGAIN_SECONDS = 0.5


def tables_complete(context: Context) -> str:
    """Every table is there, can be read to its last page, and has the rows it should have.

    Of a table in `suspicion.except_tables` only what `checks.tables_complete.tables` says counts.
    """
    told = context.settings.checks.tables_complete
    base = context.facts(Asset.DATABASE).database
    if base is None:
        raise Unknown("the recovery point tells nothing of tables")
    counted = {
        name: int(rows * (1 - told.tolerance_percent / 100))
        for name, rows in context.settings.suspicion.lasting(base.tables).items()
    }
    least = dict(counted)
    for name, minimum in told.tables.items():
        full = name if "." in name else f"public.{name}"
        least[full] = max(least.get(full, 0), minimum.at_least)
    have = postgres.row_counts(context.database)
    wrong = [f"{name} is missing" for name in least if name not in have]
    wrong += [
        f"{name} has {have[name]} rows, not {rows} or more"
        for name, rows in least.items()
        if name in have and have[name] < rows
    ]
    if wrong:
        # The base copy is from hours before the last moment that was replayed.
        hint = (
            f" (counted at {base.stopped_at:%Y-%m-%d %H:%M} UTC; if it is right, as of queues, "
            "sessions or a table that was dropped, name it in suspicion.except_tables)"
        )
        fewer = any(have.get(name, -1) < rows for name, rows in counted.items())
        raise Failed("; ".join(wrong) + (hint if fewer else ""))
    postgres.read_every_row(context.database)
    total = sum(have.values())
    return f"{len(least)} of {len(least)} tables, {total} rows, every page read"


def file_counts(context: Context) -> str:
    """Each directory has at least the files of the newest recovery point."""
    told = context.settings.checks.file_counts
    lost = len(integrity.known_losses(context.settings))
    wrong, seen = [], []
    for asset in (Asset.FILES, Asset.MODELS):
        facts = context.facts(asset)
        for name, path in directories_of(context.settings, asset).items():
            expected = facts.directories[name].files if name in facts.directories else 0
            allowed = lost if asset is Asset.FILES else 0
            least = int(expected * (1 - told.tolerance_percent / 100)) - allowed
            found = filesystem.tree_size(path)[0] if path.is_dir() else 0
            if found < least or (expected and not found):
                wrong.append(f"{name}: {found} files of {expected}")
            seen.append(f"{name}: {found} files, {expected} expected")
    if wrong:
        raise Failed(
            "; ".join(wrong) + " (if users have deleted the others since: "
            "checks.file_counts.tolerance_percent)"
        )
    known = f"; {lost} known to be lost" if lost else ""
    return "; ".join(seen) + known


def models_loadable(context: Context) -> str:
    """The platform has loaded every model, and each file has its digest."""
    told = required(context.settings.checks.models_loadable, "models_loadable")
    facts = context.facts(Asset.MODELS)
    digests = {
        (name, file): digest
        for name, directory in facts.directories.items()
        for file, digest in directory.digests.items()
    }
    wrong = []
    for name, path in directories_of(context.settings, Asset.MODELS).items():
        there = filesystem.digests(path) if path.is_dir() else {}
        wrong += [
            f"{file} is {'altered' if file in there else 'missing'}"
            for (directory, file), digest in digests.items()
            if directory == name and there.get(file) != digest
        ]
    expected = told.expected or tuple(Path(file).stem for _, file in digests)
    with context.client(told.session) as client:
        answer = client.send(told.request)
    loaded = _loaded(answer.json, told)
    wrong += [f"{name} is not loaded" for name in expected if name not in loaded]
    if wrong:
        raise Failed("; ".join(wrong))
    return f"{len(expected)} of {len(expected)} loaded, {len(digests)} files have their digest"


def _loaded(answer, told) -> set[str]:
    from lifeboat.tools.http import value_at

    entries = value_at(answer, told.list_at) or []
    return {
        str(value_at(entry, told.name_at))
        for entry in entries
        if not told.loaded_at or value_at(entry, told.loaded_at) is True
    }


def user_data_intact(context: Context) -> str:
    """What the database refers to is there and whole, in files and in other tables."""
    told = context.settings.checks.user_data_intact
    evidence = [_files_referred_to(context, told.sample_files), _references(context)]
    for name, text in told.must_be_empty.items():
        rows = postgres.query(
            context.database, text, timeout_seconds=context.settings.checks.full_read_seconds
        )
        if rows:
            raise Failed(f"rule {name}: {len(rows)} violations, first {rows[0]}")
        evidence.append(f"rule {name} holds")
    return "; ".join(evidence)


def _files_referred_to(context: Context, sample: int) -> str:
    if not context.settings.files.manifest_query:
        raise Unknown("`files.manifest_query` is not set: what files there should be is not known")
    referred = integrity.referred_files(context.settings)
    known = integrity.known_losses(context.settings)
    wanted = list({item.path: item for item in referred if item.path not in known}.values())
    roots = list(directories_of(context.settings, Asset.FILES).values())
    chosen = wanted
    if sample and len(wanted) > sample:
        # The newest are those that a recovery is most likely to have lost.
        newest = wanted[-sample // 2 :]
        chosen = newest + random.sample(wanted[: -len(newest)], sample - len(newest))
    read = {item.path for item in chosen}
    bad = _what_is_bad(roots, wanted, read)
    for _ in range(_LOOKS_AGAIN):
        if not bad:
            break
        # Users delete files while we look, and so does the check that uploads one.
        time.sleep(_LOOK_AGAIN_SECONDS)
        now = {item.path: item for item in integrity.referred_files(context.settings)}
        bad = _what_is_bad(roots, [now[path] for path in bad if path in now], read)
    if bad:
        raise Failed(f"{len(bad)} of {len(wanted)} files: " + "; ".join([*bad.values()][:5]))
    lost = f", {len(known)} known to be lost" if known else ""
    return f"{len(wanted)} of {len(wanted)} files there, {len(chosen)} compared by SHA-256{lost}"


def _what_is_bad(
    roots: list[Path], wanted: Iterable[Referred], read: Collection[str]
) -> dict[str, str]:
    """What is wrong, in words, by path; the content of those in `read` is compared too."""
    bad = {}
    for item in wanted:
        path = _place(roots, item.path)
        try:
            if path is None:
                bad[item.path] = f"{item.path} is missing"
            elif (size := path.stat().st_size) != item.bytes:
                bad[item.path] = f"{item.path} has {size} bytes, not {item.bytes}"
            elif item.path in read and filesystem.digest(path) != item.sha256:
                bad[item.path] = f"{item.path} is altered"
        except FileNotFoundError:
            bad[item.path] = f"{item.path} is missing"
    return bad


def _place(roots: list[Path], name: str) -> Path | None:
    return next((root / name for root in roots if (root / name).is_file()), None)


def _references(context: Context) -> str:
    """Every foreign key, against the rows themselves: a damaged table breaks them unnoticed."""
    found = postgres.check_references(
        context.database, timeout_seconds=context.settings.checks.full_read_seconds
    )
    if found.dangling:
        raise Failed("; ".join(found.dangling))
    return f"{found.keys} foreign keys hold"
