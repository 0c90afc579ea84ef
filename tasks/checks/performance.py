"""Performance: response times, memory, CPU, disk."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lifeboat.core.points import Asset
from lifeboat.tools import resources
from lifeboat.tools.stacks import ServiceStatus
from tasks.checks.context import Context, Failed, required
from tasks.trees import directories_of

_SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class _Sample:
    """The running services at one moment, in monotonic seconds."""

    at: float
    services: Mapping[str, ServiceStatus]


def response_times(context: Context) -> str:
    """95 of 100 answers come in time."""
    told = required(context.settings.checks.response_times, "response_times")
    seen = []
    with context.client(told.session) as client:
        for request in told.requests:
            seconds = sorted(client.send(request).seconds for _ in range(told.times))
            p95 = seconds[math.ceil(0.95 * len(seconds)) - 1]
            if p95 > told.p95_seconds:
                raise Failed(
                    f"{request.url}: p95 is {p95:.2f} s of {len(seconds)} answers, more than "
                    f"{told.p95_seconds:g} s"
                )
            seen.append(f"{request.url} p95 {p95 * 1000:.0f} ms of {len(seconds)}")
    return "; ".join(seen)


def memory_stable(context: Context) -> str:
    """No service grows and grows while it is watched, and the host has memory left."""
    told = context.settings.checks.memory_stable
    available = resources.available_memory_percent()
    if available < told.available_percent:
        raise Failed(f"{available:.0f} % of the host's memory is available")
    samples = _watch(context)
    leaking = [
        f"{name} grew from {first / 1e6:.0f} to {last / 1e6:.0f} MB in "
        f"{context.settings.checks.window_seconds:g} s"
        for name, (first, last, grows) in _growth(samples).items()
        if grows
        and last - first > told.growth_bytes
        and 100 * (last - first) > told.growth_percent * first
    ]
    if leaking:
        raise Failed("; ".join(leaking))
    services = samples[-1].services
    total = sum(status.memory_bytes for status in services.values())
    return (
        f"{len(services)} services use {total / 1e6:.0f} MB, none grows; "
        f"{available:.0f} % of the host's memory is available"
    )


def _growth(samples: list[_Sample]) -> dict[str, tuple[int, int, bool]]:
    """First and last memory of each service, and whether it was still growing at the end."""
    found = {}
    for name, last in samples[-1].services.items():
        series = [seen.memory_bytes for _, seen in _series(samples, name, last)]
        third = series[-max(2, len(series) // 3) :]
        found[name] = (series[0], series[-1], third[-1] > third[0])
    return found


def cpu_normal(context: Context) -> str:
    """No service runs away: a busy one pauses."""
    told = context.settings.checks.cpu_normal
    samples = _watch(context)
    running_away, used = [], 0.0
    for name, last in samples[-1].services.items():
        series = _series(samples, name, last)
        # What a child had used is not seen any more once the child has ended.
        used += max(0.0, series[-1][1].cpu_seconds - series[0][1].cpu_seconds)
        # By what really passed: on a busy host one look comes late and the next one soon after.
        shares = [
            100 * (after.cpu_seconds - before.cpu_seconds) / (end - begin) / resources.cores()
            for (begin, before), (end, after) in zip(series, series[1:], strict=False)
        ]
        least = min(shares, default=0.0)
        if least > told.service_percent:
            running_away.append(f"{name} never used less than {least:.0f} % of all cores")
    if running_away:
        raise Failed("; ".join(running_away))
    window = max(_SAMPLE_SECONDS, samples[-1].at - samples[0].at) * resources.cores()
    return f"{len(samples[-1].services)} services used {100 * used / window:.0f} % of all cores"


def _series(
    samples: list[_Sample], name: str, last: ServiceStatus
) -> list[tuple[float, ServiceStatus]]:
    """When the process that runs now was seen, and how."""
    return [
        (sample.at, sample.services[name])
        for sample in samples
        if name in sample.services and sample.services[name].pid == last.pid
    ]


def _watch(context: Context) -> list[_Sample]:
    """Look at the running services during the window, with pauses in between."""
    samples = []
    count = max(3, math.ceil(context.settings.checks.window_seconds / _SAMPLE_SECONDS))
    for number in range(count + 1):
        time.sleep(_SAMPLE_SECONDS if number else 0)
        services = {name: s for name, s in context.statuses().items() if s.pid}
        samples.append(_Sample(time.monotonic(), services))
    return samples


def disk_space(context: Context) -> str:
    """Every file system that the platform or its vault fills has room."""
    told, settings = context.settings.checks.disk_space, context.settings
    paths = [settings.database.data_directory, settings.vault.local]
    for asset in (Asset.FILES, Asset.MODELS):
        paths += directories_of(settings, asset).values()
    spaces = resources.file_systems(paths)
    for space in spaces:
        if space.free_percent < told.free_percent or space.free_bytes < told.free_bytes:
            raise Failed(
                f"{space.path}: {space.free_bytes / 1e9:.1f} GB free ({space.free_percent:.0f} %)"
            )
    return "; ".join(
        f"{s.path}: {s.free_bytes / 1e9:.1f} GB free ({s.free_percent:.0f} %)" for s in spaces
    )
