"""One work, several contenders, alternating: samples by contender, medians, and their ratios."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.shell import Failed, Sample, median

OURS = "Lifeboat"


@dataclass
class Comparison:
    """What was measured of one work."""

    title: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def measure(self, name: str, act: Callable[[], Sample]) -> None:
        """Take one sample; a contender that fails once is out, with its reason."""
        if name in self.failures:
            return
        try:
            sample = act()
            self.samples.setdefault(name, []).append(sample)
            print(f"{self.title} | {name}: {sample.seconds:.2f} s", file=sys.stderr, flush=True)
        except Failed as failure:
            self.failures[name] = str(failure)
            self.samples.pop(name, None)
            print(f"{self.title} | {name}: {str(failure)[-400:]}", file=sys.stderr, flush=True)

    def medians(self) -> Mapping[str, Sample]:
        return {name: median(samples) for name, samples in self.samples.items() if samples}

    def ratio_to_best_peer(self) -> float | None:
        """Our seconds over those of the fastest peer; None if either is missing."""
        found = {name: sample.seconds for name, sample in self.medians().items()}
        ours = found.pop(OURS, None)
        return ours / min(found.values()) if ours is not None and found else None

    def in_markdown(self) -> Iterator[str]:
        """The table of this work, line by line."""
        medians = self.medians()
        ours = medians.get(OURS)
        yield f"### {self.title}"
        yield ""
        yield "| contender | median s | all s | Lifeboat / it | processor s | memory MB |"
        yield "|---|---:|---|---:|---:|---:|"
        for name, sample in sorted(medians.items(), key=lambda item: item[1].seconds):
            ratio = f"{ours.seconds / sample.seconds:.2f}" if ours else "-"
            every = ", ".join(f"{one.seconds:.2f}" for one in self.samples[name])
            yield (
                f"| {name} | {sample.seconds:.2f} | {every} | {ratio} "
                f"| {sample.processor_seconds:.1f} | {sample.peak_mb:.0f} |"
            )
        for name, why in self.failures.items():
            yield f"| {name} | failed | {' '.join(why.split())[-160:]} | | | |"
        for name, note in self.notes.items():
            yield ""
            yield f"{name}: {note}"
        yield ""


def turned(names: list[str], by: int) -> list[str]:
    """The same in another order each round, so that no one always comes after the same."""
    by %= len(names) or 1
    return names[by:] + names[:by]
