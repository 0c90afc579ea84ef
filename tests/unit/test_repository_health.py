"""A repository's health: a finding counts when it was made alone, and says what to do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lifeboat.core.errors import TransientError, VerificationFailed
from lifeboat.core.marks import Kind
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings, load_settings
from lifeboat.tools.restic import Health, Repository, Snapshot
from tasks import clock, locks, marks, places
from tasks.repository_health import check_repository
from tests.unit.smallest_settings import SMALLEST

NOW = datetime(2026, 6, 1, 3, tzinfo=timezone.utc)
PACK, OTHER = "a" * 64, "b" * 64
WHOLE = Health(seconds=1.0)
BROKEN = Health(problems=f"pack {PACK} contains 2 errors", damaged_packs=(PACK,))


@dataclass
class Asked:
    """What the repository is to answer, in turn, and what it was asked."""

    answers: list[Health | Exception]
    questions: list[tuple[str, bool]] = field(default_factory=list)
    caches: list[Path | None] = field(default_factory=list)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    monkeypatch.setattr(locks, "stand_aside", lambda settings, doing: None)
    return load_settings(tmp_path / "lifeboat.yaml")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Restic's answers are made up; all that is done with them is real."""
    asked = Asked([])

    @dataclass(frozen=True, kw_only=True)
    class Answering(Repository):
        def check(self, *, read: str = "", alone: bool = False) -> Health:
            asked.questions.append((read, alone))
            asked.caches.append(self.cache_directory)
            answer = asked.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def harmed_by(self, packs) -> frozenset[str]:
            return frozenset(f"snapshot-{pack}" for pack in packs)

        def snapshots(self, *, tags=None) -> tuple[Snapshot, ...]:
            found = Snapshot(
                id=f"snapshot-{PACK}",
                short_id="x",
                taken_at=NOW,
                host="x",
                paths=(),
                tags={"point": "files-20260501T000000Z"},
                bytes=1,
                files=1,
                unmodified_files=None,
                added_bytes=None,
                new_blobs=None,
            )
            whole = {"point": "files-20260502T000000Z"}
            return (found, dataclasses.replace(found, id="whole", tags=whole))

    def repository(settings: Settings, asset: Asset, tier: Tier) -> Repository:
        return Answering(location=f"{tier}:{asset}", password="", program=Path("restic"))

    monkeypatch.setattr(places, "repository", repository)
    return asked


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def remove(settings: Settings, kind: Kind, name: str) -> None:
        assert kind is Kind.VERIFIED
        names.append(name)

    monkeypatch.setattr(marks, "remove", remove)
    return names


def check(settings: Settings, tier: Tier = Tier.S3, **how) -> None:
    with clock.set_to(NOW):
        check_repository(settings, Asset.FILES, tier, cache=Path("/scratch/cache"), **how)


def test_what_is_whole_is_looked_at_once_with_a_cache_of_its_own(settings, asked: Asked) -> None:
    asked.answers = [WHOLE]
    check(settings)
    [(read, alone)] = asked.questions
    assert read.endswith("/30") and not alone
    assert asked.caches == [Path("/scratch/cache")]


def test_what_a_prune_took_meanwhile_is_no_damage(settings, asked: Asked) -> None:
    asked.answers = [BROKEN, WHOLE]
    check(settings)
    [(first, _), (second, alone)] = asked.questions
    assert first == second and alone


def test_a_sample_is_read_whole_when_something_was_wrong(settings, asked: Asked) -> None:
    """Another draw might miss it."""
    asked.answers = [BROKEN, WHOLE]
    check(settings, sample_percent=2.5)
    assert asked.questions == [("2.5%", False), ("100%", True)]


def test_where_nobody_can_look_alone_the_first_look_counts(
    settings, asked: Asked, forgotten: list[str]
) -> None:
    asked.answers = [BROKEN, TransientError("A backup holds the lock.")]
    with pytest.raises(VerificationFailed, match=PACK):
        check(settings)


def test_a_network_that_fails_is_no_damage(settings, asked: Asked, monkeypatch) -> None:
    monkeypatch.setattr("tasks.orchestration.RETRY_WAITS_SECONDS", (0.0,))
    asked.answers = [TransientError("It does not answer.")] * 2
    with pytest.raises(TransientError):
        check(settings)


@pytest.mark.parametrize(("tier", "unproven"), [(Tier.S3, True), (Tier.LOCAL, False)])
def test_a_harmed_point_is_not_verified_any_longer_from_s3(
    settings, asked: Asked, forgotten: list[str], tier: Tier, unproven: bool
) -> None:
    """A test proves what is in S3, so what rots here changes nothing of that."""
    asked.answers = [BROKEN, BROKEN]
    with pytest.raises(VerificationFailed, match="1, the newest files-20260501T000000Z"):
        check(settings, tier)
    assert forgotten == (["files-20260501T000000Z"] if unproven else [])


@pytest.mark.parametrize(
    ("found", "what", "remedy"),
    [
        (
            Health(problems="x", damaged_packs=(PACK, OTHER)),
            f"damaged packs: {PACK}, {OTHER};",
            f"`restic -r s3:files repair packs {PACK} {OTHER}`, then `lifeboat backup files`",
        ),
        (
            Health(problems="x", missing_packs=(PACK,)),
            f"missing packs: {PACK};",
            "`restic -r s3:files repair index`, then `lifeboat backup files`",
        ),
        (
            Health(problems="x", damaged_packs=(PACK,), missing_packs=(OTHER,)),
            f"missing packs: {OTHER}; damaged packs: {PACK};",
            f"`restic -r s3:files repair index`, `restic -r s3:files repair packs {PACK}`, then",
        ),
        (
            Health(problems="x", missing_packs=tuple(f"{n:064}" for n in range(5))),
            "and 2 more;",
            "repair index",
        ),
        (
            Health(problems="x", index_is_damaged=True),
            "its index lacks what the points refer to",
            "`restic -r s3:files repair index` makes it anew",
        ),
        (
            Health(problems="blob 7 not found in index", something_is_lost=True),
            "blob 7 not found in index",
            "`restic -r s3:files repair snapshots --forget` lets them go",
        ),
        (Health(problems="a riddle"), "a riddle", "077_troubleshooting"),
    ],
)
def test_each_finding_says_what_is_wrong_and_what_to_do(
    settings, asked: Asked, forgotten: list[str], found: Health, what: str, remedy: str
) -> None:
    asked.answers = [found, found]
    with pytest.raises(VerificationFailed) as failed:
        check(settings)
    assert what in failed.value.message
    assert "s3 repository of files, s3:files" in failed.value.message
    assert remedy in failed.value.hint
    assert "--from local" in failed.value.hint
