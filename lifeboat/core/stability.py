"""Whether a platform behaves as it did before: samples, what is usual, and what has drifted.

Pure. Memory in bytes, CPU in percent of one core, answers in seconds, errors as a share of the
lines of a service's log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

_ERROR = re.compile(
    r"\b(error|exception|traceback|fatal|panic|critical|segfault|oom[- ]kill\w*|out of memory)\b"
    r"|\b(?-i:[A-Z])\w*(?-i:Error|Exception)\b",  # as Python and Java name theirs
    re.IGNORECASE,
)
# What is too small to be told from noise.
_MEMORY_FLOOR_BYTES = 100_000_000  # a service fills its caches after a start
_CPU_FLOOR_PERCENT = 20.0
_ANSWER_FLOOR_SECONDS = 0.2
_ERRORS_FLOOR = 5
_ERROR_SHARE_FLOOR = 0.02
_MOST_SAMPLES = 96  # of which what is usual is worked out: a day
_TOLD = 3


class _Frozen(BaseModel):
    # A newer Lifeboat may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")


class LogCount(_Frozen):
    """How many of the newest lines of a log tell of an error, and the last of them."""

    lines: int
    errors: int
    last: str = ""

    @property
    def share(self) -> float:
        return self.errors / self.lines if self.lines else 0.0


class ServiceSample(_Frozen):
    """One service at one moment."""

    running: bool
    memory_bytes: int = 0
    cpu_percent: float | None = None  # None: it was not watched long enough
    started_at: float | None = None  # seconds since the epoch
    log: LogCount | None = None  # None: its log can't be read


class Sample(_Frozen):
    """One look at the platform. `failed_checks`: evidence by the check's name."""

    at: datetime
    services: Mapping[str, ServiceSample] = Field(default_factory=dict)
    failed_checks: Mapping[str, str] = Field(default_factory=dict)
    checks: int = 0
    answer_seconds: float | None = None
    trouble: str = ""  # why the look could not be taken as a whole


class Usual(_Frozen):
    """What is usual for one service. The shares are those of the log's newest lines."""

    memory_bytes: float
    cpu_percent: float | None
    error_share: float | None
    ran: bool = True  # in most of the samples


class Baseline(_Frozen):
    """What was usual before something happened: the middle of so many samples."""

    until: datetime
    samples: int
    services: Mapping[str, Usual]
    answer_seconds: float | None = None


class Drift(_Frozen):
    """Something that is not as it was."""

    what: str
    told: str


def count_errors(text: str) -> LogCount:
    """Count the lines of a log that tell of an error."""
    lines = [line for line in text.splitlines() if line.strip()]
    bad = [line.strip() for line in lines if _ERROR.search(line)]
    return LogCount(lines=len(lines), errors=len(bad), last=bad[-1][:200] if bad else "")


def baseline_of(samples: Sequence[Sample]) -> Baseline | None:
    """What was usual in these samples; None if there is none that could be taken."""
    good = [sample for sample in samples if not sample.trouble][-_MOST_SAMPLES:]
    if not good:
        return None
    names = sorted({name for sample in good for name in sample.services})
    answers = [s.answer_seconds for s in good if s.answer_seconds is not None]
    return Baseline(
        until=good[-1].at,
        samples=len(good),
        services={name: _usual(name, good) for name in names},
        answer_seconds=median(answers) if answers else None,
    )


def _usual(name: str, samples: Iterable[Sample]) -> Usual:
    seen = [sample.services[name] for sample in samples if name in sample.services]
    running = [service for service in seen if service.running]
    cpu = [service.cpu_percent for service in running if service.cpu_percent is not None]
    shares = [service.log.share for service in seen if service.log]
    return Usual(
        memory_bytes=median(s.memory_bytes for s in running) if running else 0,
        cpu_percent=median(cpu) if cpu else None,
        error_share=median(shares) if shares else None,
        ran=2 * len(running) > len(seen),
    )


def drifts(
    sample: Sample, baseline: Baseline | None, earlier: Sample | None, *, percent: float
) -> tuple[Drift, ...]:
    """What is not as it was: against what is usual, and against the look before this one."""
    if sample.trouble:
        return (Drift(what="look", told=sample.trouble),)
    return (
        *_broken(sample, baseline),
        *_restarted(sample, earlier),
        *(_against(sample, baseline, percent) if baseline else ()),
    )


def _broken(sample: Sample, baseline: Baseline | None) -> Iterator[Drift]:
    for name, evidence in sample.failed_checks.items():
        yield Drift(what=name, told=f"the check does not pass: {evidence}")
    for name, usual in baseline.services.items() if baseline else ():
        now = sample.services.get(name)
        if usual.ran and (now is None or not now.running):
            yield Drift(what=name, told="it does not run, and it did before")


def _restarted(sample: Sample, earlier: Sample | None) -> Iterator[Drift]:
    for name, now in sample.services.items():
        before = earlier.services.get(name) if earlier else None
        if before is None or before.started_at is None or now.started_at is None:
            continue
        # The start is worked out of an age, to some tenths of a second.
        if now.started_at - before.started_at > 2:
            yield Drift(what=name, told="it was started again since the last look")


def _against(sample: Sample, baseline: Baseline, percent: float) -> Iterator[Drift]:
    factor = 1 + percent / 100
    for name, usual in baseline.services.items():
        now = sample.services.get(name)
        if now is None or not now.running:
            continue
        memory = usual.memory_bytes
        if now.memory_bytes > factor * memory and now.memory_bytes - memory > _MEMORY_FLOOR_BYTES:
            told = (
                f"it uses {now.memory_bytes / 1e6:.0f} MB of memory, before {memory / 1e6:.0f} MB"
            )
            yield Drift(what=name, told=told)
        cpu, used = usual.cpu_percent, now.cpu_percent
        if cpu is None or used is None:
            continue
        if used > factor * cpu and used - cpu > _CPU_FLOOR_PERCENT:
            yield Drift(what=name, told=f"it uses {used:.0f} % of a core, before {cpu:.0f} %")
    before = baseline.answer_seconds
    if before is not None and sample.answer_seconds is not None:
        more = sample.answer_seconds - before
        if sample.answer_seconds > factor * before and more > _ANSWER_FLOOR_SECONDS:
            told = f"answers take {sample.answer_seconds:.2f} s, before {before:.2f} s"
            yield Drift(what="answers", told=told)


class Anomaly(_Frozen):
    """A service whose log tells of more errors than before."""

    service: str
    told: str


def anomalies(sample: Sample, baseline: Baseline | None) -> tuple[Anomaly, ...]:
    """The services whose logs tell of more errors than is usual; without a baseline, of many."""
    found = []
    for name, now in sample.services.items():
        if now.log is None or now.log.errors < _ERRORS_FLOOR:
            continue
        usual = baseline.services.get(name) if baseline else None
        before = usual.error_share if usual else None
        if now.log.share <= max(_ERROR_SHARE_FLOOR, 2 * (before or 0.0)):
            continue
        was = "not known" if before is None else f"{100 * before:.1f} %"
        found.append(
            Anomaly(
                service=name,
                told=f"{now.log.errors} of its last {now.log.lines} lines tell of errors "
                f"({100 * now.log.share:.1f} %, before {was}); the last: {now.log.last}",
            )
        )
    return tuple(found)


class Look(_Frozen):
    """One look of a stability watch, and what it came to."""

    sample: Sample
    drifts: tuple[Drift, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    source: str = ""  # the recovery after which it was taken; empty: in everyday life

    @property
    def good(self) -> bool:
        """Whether the platform behaves as it did before."""
        return not self.drifts

    def in_words(self) -> str:
        """What has drifted, in one line."""
        told = "; ".join(f"{drift.what}: {drift.told}" for drift in self.drifts)
        return told or "nothing has drifted"


def conclusion(looks: Sequence[Look], baseline: Baseline | None, hours: float) -> str:
    """What a stability watch came to, in words."""
    bad = [look for look in looks if look.drifts]
    against = "nothing to compare with was on record"
    if baseline:
        against = (
            f"compared with {baseline.samples} looks until {baseline.until:%Y-%m-%d %H:%M} UTC"
        )
    told = f"{len(looks)} looks in {hours:.1f} hours, {len(bad)} with drift; {against}."
    worst: dict[str, int] = {}
    for look in bad:
        for drift in look.drifts:
            worst[drift.what] = worst.get(drift.what, 0) + 1
    most = sorted(worst.items(), key=lambda item: -item[1])[:_TOLD]
    if most:
        told += " Most often: " + ", ".join(f"{name} ({count})" for name, count in most) + "."
    return told


def log_conclusion(looks: Sequence[Look], baseline: Baseline | None) -> str:
    """What the logs of the services told of, in words."""
    by_service: dict[str, Anomaly] = {}
    for look in looks:
        for anomaly in look.anomalies:
            by_service[anomaly.service] = anomaly
    if not by_service:
        without = "" if baseline else "; there was nothing to compare with"
        return f"No log tells of more errors than before, in {len(looks)} looks{without}."
    return " ".join(f"{name}: {anomaly.told}." for name, anomaly in by_service.items())


def is_over(began_at: datetime, now: datetime, hours: float) -> bool:
    """Whether a watch that began then is over."""
    return now >= began_at + timedelta(hours=hours)
