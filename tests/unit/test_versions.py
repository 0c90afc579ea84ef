"""Which versions are made current again, and when the attack began; on many random histories."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifeboat.core.losses import by_hour, find_losses, last_moment_before
from lifeboat.core.versions import (
    Belief,
    Decision,
    Fate,
    Form,
    Origin,
    Version,
    believe,
    decide,
    form_of,
    histories,
    looks_whole,
    name_of_content,
    was_overwritten,
    with_proven,
)

ATTACK = datetime(2026, 11, 25, 3, 10, 7, tzinfo=timezone.utc)
HEX = "0123456789abcdef" * 4
PACK = f"file-backups/data/01/{HEX}"
CONFIG = "file-backups/config"
LOCK = f"file-backups/locks/{HEX}"
SEGMENT = "database/wal/7576/00000001/000000010000000000000007.zst.age"
PARTIAL = "database/wal/7576/00000001/000000010000000000000008.partial.zst.age"
MARK = "records/verified/files-20261124T000000Z.json"


def at(seconds: float) -> datetime:
    """Seconds after the attack."""
    return ATTACK + timedelta(seconds=seconds)


def history(key: str, *events: tuple[float, str]) -> list[Version]:
    """Versions as a store lists them, from (seconds after the attack, content or "" if deleted)."""
    told = [
        Version(
            key=key,
            id=f"{key}#{number}",
            at=at(seconds),
            current=number == len(events) - 1,
            bytes=len(content),
            etag=content,
            marker=not content,
        )
        for number, (seconds, content) in enumerate(events)
    ]
    newest_first = told[::-1]
    return [v for v in newest_first if not v.marker] + [v for v in newest_first if v.marker]


def fate_of(key: str, *events: tuple[float, str], as_of: float = -1, **how) -> Decision | None:
    decisions = decide(histories(history(key, *events)), as_of=at(as_of), **how)
    assert len(decisions) <= 1
    return decisions[0] if decisions else None


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (PACK, Form.RESTIC),
        (f"database/repository/data/ff/{HEX}", Form.RESTIC),
        (CONFIG, Form.RESTIC),
        (f"configs/keys/{HEX}", Form.RESTIC),
        (f"configs/index/{HEX}", Form.RESTIC),
        (f"configs/snapshots/{HEX}", Form.RESTIC),
        (LOCK, Form.LOCK),
        (SEGMENT, Form.WAL),
        ("database/wal/7576/00000002/00000002.history.zst.age", Form.WAL),
        (PARTIAL, Form.CHANGING),
        ("database/wal-partial/7576/000000010000000000000008.partial.zst.age", Form.CHANGING),
        (MARK, Form.CHANGING),
        ("records/runs/backup-files-20261125T031000Z-1a2b/record.json", Form.RUN),
        ("READ_ME_TO_RECOVER.txt", Form.UNKNOWN),
        (f"file-backups/data/01/{HEX}.locked", Form.UNKNOWN),
        ("file-backups/locks/note.txt", Form.UNKNOWN),
    ],
)
def test_the_form_of_every_kind_of_object(key: str, form: Form) -> None:
    assert form_of(key) is form


GOOD, BAD = (-9000, "good"), (0, "garbage")


@pytest.mark.parametrize(
    ("key", "events", "fate", "brings_back"),
    [
        # What never changes.
        (PACK, [GOOD], Fate.WHOLE, None),
        (PACK, [GOOD, (0, "")], Fate.BRING_BACK, 0),
        (PACK, [GOOD, BAD], Fate.BRING_BACK, 0),
        (PACK, [GOOD, BAD, (1, "")], Fate.BRING_BACK, 0),
        (PACK, [GOOD, (0, ""), (60, "good")], Fate.WHOLE, None),  # brought back already
        (PACK, [GOOD, (0, ""), (60, "good"), (90, "")], Fate.BRING_BACK, 0),
        (PACK, [GOOD, (-600, "")], None, None),  # a prune before
        (PACK, [GOOD, (-600, ""), (0, "garbage")], Fate.NEWER, None),
        (PACK, [(60, "later")], Fate.NEWER, None),
        (PACK, [(60, "later"), (90, "")], Fate.BRING_BACK, 0),  # destroyed by the same thief
        (PACK, [(60, "later"), (90, "garbage")], Fate.BRING_BACK, 0),
        (PACK, [(0, "")], None, None),
        (CONFIG, [GOOD, (0, ""), (600, "a new repository")], Fate.BRING_BACK, 0),
        (SEGMENT, [GOOD, (0, "")], Fate.BRING_BACK, 0),
        # What may change.
        (PARTIAL, [(-120, "x"), (-60, "xx")], Fate.WHOLE, None),
        (PARTIAL, [(-120, "x"), (-60, "xx"), (0, "")], Fate.BRING_BACK, 1),
        (PARTIAL, [(-120, "x"), (60, "xx")], Fate.CHANGED, 0),
        (PARTIAL, [(60, "x"), (90, "")], None, None),  # closed since
        (MARK, [(-60, "a"), (0, "garbage")], Fate.CHANGED, 0),
        ("strange.txt", [GOOD, (0, "")], Fate.BRING_BACK, 0),
        ("strange.txt", [(0, "your files are mine")], Fate.NEWER, None),
        # restic's locks are nobody's loss.
        (LOCK, [GOOD, (0, "")], None, None),
        (LOCK, [GOOD], None, None),
    ],
)
def test_what_becomes_of_an_object(
    key: str, events: list[tuple[float, str]], fate: Fate | None, brings_back: int | None
) -> None:
    decision = fate_of(key, *events)
    assert (decision.fate if decision else None) == fate
    version = decision.version if decision else None
    assert (version.id if version else None) == (
        None if brings_back is None else f"{key}#{brings_back}"
    )


def test_with_hide_newer_a_repository_that_was_made_anew_gives_way() -> None:
    made_anew = (600, "snapshot of the new repository")
    assert fate_of(PACK, made_anew, hide_newer=True).fate is Fate.HIDE
    assert fate_of(PACK, made_anew, (700, ""), hide_newer=True) is None, "hidden already"
    assert fate_of(SEGMENT, made_anew, hide_newer=True).fate is Fate.NEWER
    assert fate_of(PACK, GOOD, hide_newer=True).fate is Fate.WHOLE


def test_a_version_and_a_marker_of_the_same_second() -> None:
    assert fate_of(PACK, (-5, "good"), (-5, ""), (0, "garbage")).fate is Fate.BRING_BACK
    assert fate_of(PACK, (-5, "good"), (-5, "")) is None, "here the store says which is newest"


def test_much_too_early_a_moment_still_brings_back_what_never_changes() -> None:
    for key in (PACK, SEGMENT):
        found = fate_of(key, (-3600, "good"), (0, "garbage"), (1, ""), as_of=-86400 * 20)
        assert (found.fate, found.version.etag) == (Fate.BRING_BACK, "good")


COPIED = [(-90, "good"), (0, "oops"), (60, "copy")]  # with another ETag


@pytest.mark.parametrize(
    ("events", "origin", "belief"),
    [
        (COPIED, Origin(f"{PACK}#0", by_key_service=True), Belief.YES),
        (COPIED, Origin(f"{PACK}#0"), Belief.NO),
        (COPIED[:1] + [(0, ""), (60, "co-y")], Origin(f"{PACK}#0"), Belief.YES),
        ([(-90, "go-d"), (60, "copy")], Origin(f"{PACK}#0"), Belief.YES),
        ([(-90, "good"), (60, "larger")], Origin(f"{PACK}#0", by_key_service=True), Belief.NO),
        ([(-90, "good"), (0, "bad"), (60, "good")], Origin(f"{PACK}#0"), Belief.YES),
        ([(0, "oops"), (60, "copy")], Origin("expired long ago"), Belief.ASK_THE_CONTENT),
    ],
)
def test_who_says_that_it_is_a_copy_is_believed_where_nothing_else_can_tell(
    events: list[tuple[float, str]], origin: Origin, belief: Belief
) -> None:
    assert believe(histories(history(PACK, *events))[PACK], origin) is belief


def test_what_is_proven_is_whole_though_only_garbage_is_kept_of_the_time_before() -> None:
    told = histories(history(PACK, (0, "garbage"), (60, "copy of what has expired")))
    assert was_overwritten(told[PACK])
    assert find_losses(told), "without proof the newest is taken for the garbage"
    known = with_proven(told, [PACK])
    assert find_losses(known) == ()
    assert {d.fate for d in decide(known, as_of=at(30))} == {Fate.WHOLE}
    assert {d.fate for d in decide(known, as_of=at(-30))} == {Fate.NEWER}


def test_only_what_never_changes_and_has_changed_was_overwritten() -> None:
    for key, events, expected in (
        (PACK, COPIED, True),
        (PACK, [GOOD, (0, ""), (60, "good")], False),
        (PACK, [GOOD, BAD, (60, "")], False),
        (MARK, COPIED, False),
        (PACK, [GOOD], False),
    ):
        assert was_overwritten(histories(history(key, *events))[key]) is expected


def test_the_name_tells_the_content() -> None:
    assert name_of_content(PACK) == HEX
    for key in (CONFIG, SEGMENT, MARK, "strange.txt"):
        assert name_of_content(key) is None


INCIDENT = "records/incidents/20261124T000000Z-files-1a2b/incident.jsonl"
CUT = "an umlaut that is cut: ä".encode()[:-1]


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (PARTIAL, b"age-encryption.org/v1\n..."),
        (MARK, b'{"point": "files"}\n'),
        (INCIDENT, b'{"kind": "opened"}\n{"kind": "note", "te\n{"kind": "closed"}\n'),
        (INCIDENT, b'{"kind": "opened"}\n{"kind": "note", "text": "' + CUT),
        ("records/followups/recover-files.jsonl", b'{"title": "look back"}\n'),
        ("records/readiness.html", b"<!doctype html>\n<html>" + CUT),
        ("status/index.html", b"<!doctype html>\n"),
        ("status/feed.xml", b'<?xml version="1.0" encoding="utf-8"?>\n<feed/>'),
        ("records/plan/plan.md", b"# The plan\n"),
        ("records/plan/plan.pdf", b"%PDF-1.7\n\x93\x00"),
    ],
)
def test_what_may_change_is_told_from_garbage_by_what_it_is(key: str, data: bytes) -> None:
    assert form_of(key) is Form.CHANGING
    assert looks_whole(key, data)
    assert not looks_whole(key, b"")
    assert not looks_whole(key, b"\n")
    assert not looks_whole(key, b"\x00\x93garbage")
    assert not looks_whole(key, b"\x00" + data)
    if not key.endswith(".md"):  # a note may say anything
        assert not looks_whole(key, b"{your files are mine}")


def test_what_is_not_known_never_looks_whole() -> None:
    for data in (b"", b"<html>", b"{}", b"Your files are mine."):
        assert not looks_whole("strange.txt", data)


# --- random histories ------------------------------------------------------------------------

keys = st.sampled_from([PACK, CONFIG, SEGMENT, PARTIAL, MARK, "strange.txt"])
events = st.lists(
    st.tuples(st.integers(-50, 50), st.sampled_from(["", "a", "b"])), min_size=1, max_size=8
).map(lambda told: sorted(told, key=lambda event: event[0]))


def applied(told: list[Version], decisions: tuple[Decision, ...]) -> list[Version]:
    """The bucket after the decisions were carried out, a minute later."""
    after = list(told)
    for decision in decisions:
        if decision.fate in (Fate.BRING_BACK, Fate.HIDE):
            after = [
                Version(**{**_fields(v), "current": v.current and v.key != decision.key})
                for v in after
            ]
            source = decision.version
            after.insert(
                0,
                Version(
                    key=decision.key,
                    id=f"{decision.key}#new",
                    at=at(3600),
                    current=True,
                    bytes=source.bytes if source else 0,
                    etag=source.etag if source else "",
                    marker=source is None,
                ),
            )
    return after


def _fields(version: Version) -> dict:
    return {name: getattr(version, name) for name in Version.__slots__}


@given(st.dictionaries(keys, events), st.integers(-60, 60), st.booleans())
@settings(max_examples=300)
def test_what_was_current_at_the_moment_is_current_again_and_running_again_does_nothing(
    told: dict[str, list[tuple[int, str]]], moment: int, hide: bool
) -> None:
    before = [version for key, events in told.items() for version in history(key, *events)]
    decisions = decide(histories(before), as_of=at(moment), hide_newer=hide)
    assert len({decision.key for decision in decisions}) == len(decisions)
    after = histories(applied(before, decisions))
    again = decide(after, as_of=at(moment), hide_newer=hide)
    assert {d.fate for d in again} <= {Fate.WHOLE, Fate.CHANGED, Fate.NEWER}
    fates = {decision.key: decision.fate for decision in decisions}
    for key, entries in histories(before).items():
        then = next((v for v in entries if v.at <= at(moment)), None)
        if then is None or then.marker or fates[key] is Fate.CHANGED:
            continue
        assert after[key][0].current
        assert after[key][0].same_content(then)
    # Nothing that is current now goes, but what was asked to be hidden or is replaced by content.
    for decision in decisions:
        if decision.fate is Fate.HIDE:
            assert hide and form_of(decision.key) is Form.RESTIC
        if decision.fate is Fate.BRING_BACK:
            assert decision.version and not decision.version.marker


# --- when it began ---------------------------------------------------------------------------


def several(*told: list[Version]) -> dict[str, tuple[Version, ...]]:
    return histories(version for versions in told for version in versions)


def pack(number: int) -> str:
    return f"file-backups/data/{number:02x}/{number:02x}{HEX[2:]}"


def test_the_moment_before_the_attack_is_found_among_old_prunes() -> None:
    pruned = [history(pack(n), (-90000, "x"), (-86400 + n, "")) for n in range(5)]
    destroyed = [history(pack(n), (-90000, "x"), (n, "")) for n in range(5, 200)]
    config = history(CONFIG, (-90000, "x"), (150, "garbage"))
    lock = history(LOCK, (-90000, "x"), (-900, ""))
    losses = find_losses(several(*pruned, *destroyed, config, lock))
    assert last_moment_before(losses) == at(5 - 1)
    yesterday, today = by_hour(losses)
    assert (yesterday.deleted, yesterday.overwritten, yesterday.never_right) == (5, 0, 0)
    assert (today.deleted, today.overwritten, today.never_right) == (195, 1, 1)
    assert today.first_at == at(5)
    assert "195 deleted, 1 overwritten; first at 03:10:12" in today.in_words()


def test_without_a_sure_sign_no_moment_is_guessed() -> None:
    pruned = [history(pack(n), (-90000, "x"), (-86400 + n, "")) for n in range(5)]
    assert last_moment_before(find_losses(several(*pruned))) is None
    assert last_moment_before([]) is None
    assert by_hour([]) == ()


def test_what_was_brought_back_is_no_loss_and_a_second_attack_is_one() -> None:
    back = history(PACK, (-90, "x"), (0, ""), (60, "x"))
    assert find_losses(several(back)) == ()
    again = history(PACK, (-90, "x"), (0, ""), (60, "x"), (7200, "garbage"), (7300, ""))
    [loss] = find_losses(several(again))
    assert (loss.at, loss.deleted) == (at(7200), False)


@given(st.lists(st.tuples(keys, events), max_size=6))
def test_before_the_moment_no_sure_sign_is_found(
    told: list[tuple[str, list[tuple[int, str]]]],
) -> None:
    losses = find_losses(several(*(history(key, *events) for key, events in dict(told).items())))
    moment = last_moment_before(losses)
    signs = [loss for loss in losses if loss.never_right]
    assert (moment is None) == (not signs)
    assert all(loss.at > moment for loss in signs)
