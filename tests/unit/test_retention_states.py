"""Whatever happens, in whatever order: no prune takes a last resort, or the WAL from under a base.

A model of the vault's two tiers, on which backups, failures, clocks, tests, holds, set-backs and
prunes act, also such as are interrupted. What they decide is the real thing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.retention import Decision, Policy, decide, local_wal_to_remove, wal_to_remove
from lifeboat.core.wal import PARTIAL, Segment, format_lsn

SIZE = 16 << 20
TIERS = (Tier.LOCAL, Tier.S3)
ASSETS = (Asset.DATABASE, Asset.FILES)

tiers = st.sampled_from([TIERS, (Tier.LOCAL,), (Tier.S3,), ()])
assets = st.sampled_from(ASSETS)
numbers = st.integers(0, 1 << 16)


class Vault(RuleBasedStateMachine):
    """Both tiers, the marks, and the log of the one database that writes into them."""

    @initialize(minimum=st.integers(1, 3), local=st.floats(0.5, 8), remote=st.floats(0.5, 16))
    def begin(self, minimum: int, local: float, remote: float) -> None:
        self.policies = {
            Tier.LOCAL: Policy(days=local, minimum=minimum),
            Tier.S3: Policy(days=remote, minimum=minimum),
        }
        self.now = datetime(2026, 6, 1, tzinfo=timezone.utc)
        self.store: dict[Tier, dict[str, RecoveryPoint]] = {tier: {} for tier in TIERS}
        self.verified: dict[str, datetime] = {}
        self.held: set[str] = set()
        self.unproven: set[Asset] = set()  # of which a point failed its test
        self.timeline, self.position = 1, 5 * SIZE
        self.starts: dict[str, int] = {}  # where the WAL of each base begins
        self.needs: dict[str, set[str]] = {}  # the WAL written since each base from there on
        self.wal: dict[Tier, set[str]] = {tier: set() for tier in TIERS}

    # --- what happens -----------------------------------------------------------------------

    @rule(days=st.floats(-40, 40))
    def clock_moves(self, days: float) -> None:
        self.now += timedelta(days=days)

    @rule(days=st.integers(2, 12), failing=st.sets(st.integers(0, 11)), by_hours=st.floats(-6, 6))
    def days_go_by(self, days: int, failing: set[int], by_hours: float) -> None:
        """Backups each day, but on some; and the clock does not keep its hour."""
        for day in range(days):
            self.now += timedelta(days=1, hours=by_hours)
            for asset in ASSETS:
                self.back_up(asset, () if day in failing else TIERS)

    @rule(asset=assets, reached=tiers)
    def back_up(self, asset: Asset, reached: tuple[Tier, ...]) -> None:
        """It may fail in one tier, or in both."""
        self.now += timedelta(seconds=1)
        name = point_id(asset, self.now)
        if name in self.starts or any(name in points for points in self.store.values()):
            return  # the clock went back to the very second
        if asset is Asset.DATABASE:
            self.starts[name], self.needs[name] = self.position, set()
            self._write(1)
        for tier in reached:
            self.store[tier][name] = RecoveryPoint(
                asset=asset, id=name, taken_at=self.now, copies={tier: "x"}, bytes=1
            )

    @rule(segments=st.integers(1, 5), shipped=st.booleans())
    def work(self, segments: int, shipped: bool) -> None:
        self._write(segments)
        if shipped:
            self.wal[Tier.S3] |= self.wal[Tier.LOCAL]

    def _write(self, segments: int) -> None:
        first = self.position // SIZE
        self.position += segments * SIZE
        written = {Segment(self.timeline, first + number) for number in range(segments + 1)}
        for base, start in self.starts.items():
            self.needs[base] |= {s.name(SIZE) for s in written if s.number >= start // SIZE}
        self.wal[Tier.LOCAL] |= {segment.name(SIZE) for segment in written}
        self.wal[Tier.LOCAL].add(max(written).name(SIZE) + PARTIAL)

    @precondition(lambda self: self._bases())
    @rule(which=numbers, ahead=st.integers(0, 3))
    def set_back(self, which: int, ahead: int) -> None:
        """A recovery to a point in time: a new timeline from after a base that is there."""
        bases = self._bases()
        base = bases[which % len(bases)]
        self.timeline += 1
        self.position = min(self.position, self.starts[base] + ahead * SIZE)
        for tier in TIERS:
            self.wal[tier].add(f"{self.timeline:08X}.history")

    def _bases(self) -> list[str]:
        return sorted({name for tier in TIERS for name in self.store[tier] if name in self.starts})

    @rule(asset=assets, passed=st.booleans())
    def test_restore(self, asset: Asset, passed: bool) -> None:
        """Of the newest point in S3; one that fails does not count as verified any longer."""
        newest = max(
            (p for p in self.store[Tier.S3].values() if p.asset is asset),
            key=lambda point: point.taken_at,
            default=None,
        )
        if newest is None:
            return
        if passed:
            self.verified[newest.id] = self.now
        elif self.verified.pop(newest.id, None):
            self.unproven.add(asset)

    @rule(which=numbers, hold=st.booleans())
    def hold_or_release(self, which: int, hold: bool) -> None:
        names = sorted(name for tier in TIERS for name in self.store[tier])
        if hold and names:
            self.held.add(names[which % len(names)])
        elif not hold and self.held:
            self.held.discard(sorted(self.held)[which % len(self.held)])

    @rule(acts=st.one_of(st.none(), st.integers(0, 8)))
    def prune(self, acts: int | None) -> None:
        """Interrupted after so many acts, or to its end."""
        decided = {
            (asset, tier): decide(
                self._points(asset, tier), self.policies[tier], now=self.now, held=self.held
            )
            for asset in ASSETS
            for tier in TIERS
        }
        for (asset, tier), decisions in decided.items():
            self._judge(asset, tier, decisions)
        to_do: list[tuple[Tier, str]] = [
            (tier, d.point.id)
            for (_, tier), decisions in decided.items()
            for d in decisions
            if not d.keep
        ]
        starts = {
            tier: [
                format_lsn(self.starts[d.point.id]) for d in decided[Asset.DATABASE, tier] if d.keep
            ]
            for tier in TIERS
        }
        here = local_wal_to_remove(
            self.wal[Tier.LOCAL],
            in_s3=self.wal[Tier.S3],
            kept_here=starts[Tier.LOCAL],
            kept_in_s3=starts[Tier.S3],
            segment_bytes=SIZE,
        )
        there = wal_to_remove(
            self.wal[Tier.S3], kept_start_lsns=starts[Tier.S3], segment_bytes=SIZE
        )
        to_do += [(Tier.LOCAL, name) for name in sorted(here)]
        to_do += [(Tier.S3, name) for name in sorted(there)]
        for tier, name in to_do[:acts]:
            self.store[tier].pop(name, None)
            self.wal[tier].discard(name)

    def _points(self, asset: Asset, tier: Tier) -> list[RecoveryPoint]:
        return [
            point.model_copy(update={"verified_at": self.verified.get(point.id)})
            for point in self.store[tier].values()
            if point.asset is asset
        ]

    def _judge(self, asset: Asset, tier: Tier, decisions: tuple[Decision, ...]) -> None:
        """What a prune may let go: nothing young, held, or without one that takes its place."""
        kept = [d.point for d in decisions if d.keep]
        gone = [d.point for d in decisions if not d.keep]
        policy = self.policies[tier]
        assert {p.id for p in (*kept, *gone)} == {p.id for p in self._points(asset, tier)}
        for point in gone:
            assert self.now - point.taken_at > timedelta(days=policy.days)
            assert point.id not in self.held
            assert sum(other.taken_at > point.taken_at for other in kept) >= policy.minimum
            if point.verified_at:
                assert any(p.verified_at and p.taken_at > point.taken_at for p in kept)

    # --- what holds -------------------------------------------------------------------------

    @invariant()
    def newest_verified_is_there(self) -> None:
        for asset in ASSETS:
            proven = [name for name in self.verified if name.startswith(f"{asset}-")]
            if proven and asset not in self.unproven:
                assert max(proven) in self.store[Tier.S3]

    @invariant()
    def held_points_are_there(self) -> None:
        assert self.held <= {name for tier in TIERS for name in self.store[tier]}

    @invariant()
    def no_base_is_without_its_wal(self) -> None:
        """Each has in its own tier all that ever reached it, and what has not waits here."""
        for tier in TIERS:
            for name in self.store[tier]:
                there = self.wal[tier] | (self.wal[Tier.LOCAL] if tier is Tier.S3 else set())
                assert self.needs.get(name, set()) <= there, f"{name} in {tier}"


Vault.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestVault = Vault.TestCase
