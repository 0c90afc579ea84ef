"""Which old version of each object of a bucket has to be made current again. A pure decision.

In a bucket with versioning to delete an object only hides it, and to overwrite it only adds a
version. So a thief with our key, who may not delete versions, destroys nothing; somebody has to
choose among millions of versions, which is done here.

The moment as of which objects are brought back tells rightful deletions, which came before it, from
the attack. What came later and is whole stays, so a moment that is somewhat too early harms little:
restic's objects never change, and more of them than needed are only removed by the next prune.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or the marker that says that it was deleted."""

    key: str  # below the bucket's prefix
    id: str
    at: datetime  # when it was written, by the store's clock, in whole seconds
    current: bool
    bytes: int = 0
    etag: str = ""
    marker: bool = False
    proven: bool = False  # its content is known to be right, whatever the versions before it say

    def same_content(self, other: Version) -> bool:
        return not (self.marker or other.marker) and (
            (self.etag, self.bytes) == (other.etag, other.bytes)
        )


class Form(StrEnum):
    """What an object of the vault is, by its key."""

    RESTIC = "restic"  # written once, under the hash of its content, and never changed
    WAL = "wal"  # a closed segment or a history: never changed either
    RUN = "run"  # a file of a run's record: likewise
    CHANGING = "changing"  # marks, pages, and the WAL segment that is being written
    LOCK = "lock"  # restic's locks, which come and go
    UNKNOWN = "unknown"

    @property
    def never_changes(self) -> bool:
        return self in (Form.RESTIC, Form.WAL, Form.RUN)


_FORMS: tuple[tuple[re.Pattern[str], Form], ...] = (
    (re.compile(r"^(.+/)?locks/[0-9a-f]{64}$"), Form.LOCK),
    (re.compile(r"^.+/config$"), Form.RESTIC),
    (re.compile(r"^.+/(keys|index|snapshots|data/[0-9a-f]{2})/[0-9a-f]{64}$"), Form.RESTIC),
    (re.compile(r"^database/wal.*/[0-9A-F]{24}\.partial\b[^/]*$"), Form.CHANGING),
    (re.compile(r"^database/wal.*/[0-9A-F]{8}([0-9A-F]{16}|\.history)\b[^/]*$"), Form.WAL),
    (re.compile(r"^records/runs/.+$"), Form.RUN),
    (re.compile(r"^records/.+$"), Form.CHANGING),
    (re.compile(r"^([\w.-]+/)+(index\.html|feed\.xml)$"), Form.CHANGING),  # the status page
)


def form_of(key: str) -> Form:
    """Given a key below the vault's prefix, say what it is."""
    return next((form for pattern, form in _FORMS if pattern.match(key)), Form.UNKNOWN)


def repository_of(key: str) -> str:
    """Given the key of one of restic's objects, give where its repository lies."""
    return re.split(r"/(?:config$|(?:keys|index|snapshots|data)/)", key, maxsplit=1)[0]


class Fate(StrEnum):
    """What becomes of an object."""

    WHOLE = "whole"  # its current version is the right one
    BRING_BACK = "bring back"  # an old version is made current again
    CHANGED = "changed"  # it may rightly change, and did: if it looks whole it stays
    NEWER = "newer"  # it came after the moment, and stays
    HIDE = "hide"  # it came after the moment, and gets a delete marker; its versions stay


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one object; `version` is what is brought back, where something is."""

    key: str
    fate: Fate
    version: Version | None = None
    deleted: bool = False  # no version is current now: it was deleted, and not overwritten


def histories(versions: Iterable[Version]) -> dict[str, tuple[Version, ...]]:
    """The versions of each key, newest first.

    Stores tell whole seconds, and list markers apart from versions. Within one second a version
    counts as newer than a marker: in doubt an object was there.
    """
    by_key: defaultdict[str, list[Version]] = defaultdict(list)
    for version in versions:
        by_key[version.key].append(version)
    # The store lists the versions of a key newest first, and the sort keeps that order in a tie.
    return {
        key: tuple(sorted(told, key=lambda v: (v.current, v.at, not v.marker), reverse=True))
        for key, told in by_key.items()
    }


def decide(
    by_key: Mapping[str, tuple[Version, ...]], *, as_of: datetime, hide_newer: bool = False
) -> tuple[Decision, ...]:
    """Say what becomes of each object, in the order of their keys.

    Left out are restic's locks, and objects that were gone by `as_of` already and still are.

    - What was current at `as_of` and is deleted or overwritten since is brought back.
    - An object that never changes, came after `as_of` and was destroyed since, is brought back too.
    - What came after `as_of` stays; with `hide_newer` restic's objects among it are hidden, which
      helps where a repository was made anew in the place of the one that was destroyed.
    """
    decisions = (
        _decide(key, by_key[key], form_of(key), as_of, hide_newer) for key in sorted(by_key)
    )
    return tuple(decision for decision in decisions if decision)


def _decide(
    key: str, history: tuple[Version, ...], form: Form, as_of: datetime, hide_newer: bool
) -> Decision | None:
    if form is Form.LOCK:
        return None
    # Without a current entry (none that we know of does that) nothing is there now.
    now = history[0] if history[0].current and not history[0].marker else None
    then = next((version for version in history if version.at <= as_of), None)
    if then is None or then.marker:
        return _decide_newer(key, history, now, form, born_later=then is None, hide=hide_newer)
    if now is not None and (now.same_content(then) or now.proven):
        return Decision(key=key, fate=Fate.WHOLE)
    if now is not None and not form.never_changes:
        return Decision(key=key, fate=Fate.CHANGED, version=then)
    return Decision(key=key, fate=Fate.BRING_BACK, version=then, deleted=now is None)


def _decide_newer(
    key: str,
    history: tuple[Version, ...],
    now: Version | None,
    form: Form,
    *,
    born_later: bool,
    hide: bool,
) -> Decision | None:
    if form is Form.RESTIC and hide:
        return Decision(key=key, fate=Fate.HIDE) if now else None
    if born_later and form.never_changes:
        first = first_content(history)
        if first and (now is None or not (now.same_content(first) or now.proven)):
            return Decision(key=key, fate=Fate.BRING_BACK, version=first, deleted=now is None)
    return Decision(key=key, fate=Fate.NEWER) if now else None


def first_content(history: Iterable[Version]) -> Version | None:
    """The oldest version that is kept: what an object that never changes ought to be."""
    content = [version for version in history if not version.marker]
    return content[-1] if content else None


# --- what was brought back before ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """What a current object says of itself: that it is a copy of an old version."""

    source_id: str
    by_key_service: bool = False  # the store encrypted it with a key of a key service


class Belief(StrEnum):
    YES = "yes"
    NO = "no"
    ASK_THE_CONTENT = "ask the content"


def was_overwritten(history: tuple[Version, ...]) -> bool:
    """Whether an object that never changes has another content now than it once had.

    If it says of itself that it is a copy, see `believe`.
    """
    now = history[0]
    return (
        now.current
        and not now.marker
        and form_of(now.key).never_changes
        and any(not (v.marker or now.same_content(v)) for v in history[1:])
    )


def believe(history: tuple[Version, ...], origin: Origin) -> Belief:
    """Whether a current object is a copy of the right version, made by an earlier recovery.

    Anybody who may write can say so. It is believed only where the ETags can't tell: those of a
    copy differ if the object was uploaded in parts, or encrypted with a key of a key service. If
    the source is gone, because old versions are kept for some days only, its content must tell.
    """
    now, *older = history
    source = next((version for version in older if version.id == origin.source_id), None)
    if source is None:
        return Belief.ASK_THE_CONTENT
    if now.same_content(source):
        return Belief.YES
    comparable = not (origin.by_key_service or "-" in now.etag or "-" in source.etag)
    return Belief.NO if comparable or source.bytes != now.bytes else Belief.YES


def with_proven(
    by_key: Mapping[str, tuple[Version, ...]], keys: Iterable[str]
) -> dict[str, tuple[Version, ...]]:
    """The same histories, with the current versions of some keys known to be right."""
    found = dict(by_key)
    for key in keys:
        now, *older = found[key]
        found[key] = (replace(now, proven=True), *older)
    return found


def name_of_content(key: str) -> str | None:
    """The SHA-256 that an object's content must have by its name; None if the name tells none."""
    name = key.rpartition("/")[2]
    return name if form_of(key) is Form.RESTIC and name != "config" else None


def looks_whole(key: str, data: bytes) -> bool:
    """Whether an object that may rightly change is what its name says. A thief's garbage is not.

    Of all but `.json` its beginning is enough. A thief who writes a proper page of lies is not
    found out.
    """
    suffix = key.rpartition(".")[2]
    if suffix in _BEGINS_WITH:
        return data.startswith(_BEGINS_WITH[suffix])
    text = _text(data)
    if suffix == "json":
        return _parses(text)
    if suffix == "jsonl":
        # One that a crash cut off spoils no other, but the first was never cut: it opened the rest.
        lines = text.splitlines()
        return _parses(next(iter(lines), "")) and all(line.startswith("{") for line in lines)
    if suffix in ("html", "xml"):
        return text.startswith("<")
    return suffix == "md" and bool(text)


_BEGINS_WITH = {"age": b"age-encryption.org/", "pdf": b"%PDF-"}


def _text(data: bytes) -> str:
    """The text that data is, whose last character may be cut off; nothing if it is none."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data).strip()
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
