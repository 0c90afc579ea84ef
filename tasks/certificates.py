"""The certificates in the configuration: when each ends, and which end soon."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from lifeboat.core.certificates import Expiring, expiring, kept_elsewhere
from lifeboat.core.errors import RecoveryError
from lifeboat.core.points import Facts
from lifeboat.settings import Settings
from lifeboat.tools import certificates, filesystem
from tasks import clock
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)?")  # as certbot numbers: cert12.pem
_NO_CONFIGURATION = (Path("/usr"), Path("/proc"), Path("/sys"))  # comes with its package


def gather(settings: Settings, places: Mapping[str, Path]) -> dict[str, datetime]:
    """When each certificate ends, by its path; relative below the directory of lifeboat.yaml.

    Where a link names one of several numbered files the older ones are left out: certbot keeps
    what has ended. What a link names outside of the places is told by its absolute path. One that
    can't be parsed is reported and left out: it is backed up all the same.
    """
    found: dict[str, datetime] = {}
    unreadable = []
    targets = _targets(places.values())
    files = {name_of(settings, path): path for path in _in_use(places.values(), targets)}
    files |= {os.fspath(path): path for path in _outside(places.values(), targets)}
    for name, path in files.items():
        try:
            ends_at = certificates.end_of(path)
        except FileNotFoundError:
            continue
        except (RecoveryError, OSError) as error:
            log.warning("%s", error)
            unreadable.append(name)
            continue
        if ends_at is not None:
            found[name] = ends_at
    if unreadable:
        current_run().fact(certificates_unreadable=", ".join(sorted(unreadable)))
    return found


def _targets(places: Iterable[Path]) -> set[Path]:
    """The files that symbolic links below the places lead to, by their real paths."""
    found = {os.path.realpath(link) for place in places for link in filesystem.links(place)}
    return {Path(target) for target in found if os.path.isfile(target)}


def _in_use(places: Iterable[Path], targets: Collection[Path]) -> Iterator[Path]:
    """Every file of the places, without the older ones of numbered files of which one is linked."""
    newest: dict[tuple[Path, str, str], int] = {}
    for target in targets:
        if numbered := _NUMBERED.fullmatch(target.name):
            series = (target.parent, numbered[1], numbered[3] or "")
            newest[series] = max(int(numbered[2]), newest.get(series, 0))
    for place in places:
        root = Path(os.path.realpath(place))
        files = [place] if place.is_file() else (Path(e.path) for e in filesystem.walk(place))
        for path in sorted(files):
            real = root / path.relative_to(place)
            numbered = _NUMBERED.fullmatch(real.name)
            if numbered and real not in targets:
                series = (real.parent, numbered[1], numbered[3] or "")
                if int(numbered[2]) < newest.get(series, 0):
                    continue
            yield path


def _outside(places: Iterable[Path], targets: Iterable[Path]) -> list[Path]:
    roots = [Path(os.path.realpath(place)) for place in places]
    known = (*roots, *_NO_CONFIGURATION)
    return sorted(t for t in targets if not any(t.is_relative_to(root) for root in known))


def name_of(settings: Settings, path: Path) -> str:
    """A path as lifeboat.yaml would name it: relative below its directory, else absolute."""
    if path.is_relative_to(settings.directory):
        return os.fspath(path.relative_to(settings.directory))
    return os.fspath(path)


def tell_expiring(settings: Settings, facts: Facts) -> tuple[Expiring, ...]:
    """Warn of every certificate that ends within `watch.certificate_days`, or has ended.

    And of those that the backup does not hold, for only a link to them lies in it.
    """
    found = expiring(facts.certificates, now=clock.now(), days=settings.watch.certificate_days)
    for certificate in found:
        log.warning("%s.", certificate.in_words())
    if found:
        current_run().fact(certificates_expiring=", ".join(one.path for one in found))
    if elsewhere := kept_elsewhere(facts):
        log.warning(
            "Of %s only a link is backed up: it lies outside of config.paths. Name there a "
            "directory that holds both.",
            ", ".join(elsewhere),
        )
        current_run().fact(certificates_elsewhere=", ".join(elsewhere))
    return found
