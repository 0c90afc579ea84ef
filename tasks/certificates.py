"""The certificates in the configuration: when each ends, and which end soon."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from lifeboat.core.certificates import Expiring, expiring
from lifeboat.core.errors import RecoveryError
from lifeboat.core.points import Facts
from lifeboat.settings import Settings
from lifeboat.tools import certificates, filesystem
from tasks import clock
from tasks.record import current_run

log = logging.getLogger("lifeboat")


def gather(settings: Settings, places: Mapping[str, Path]) -> dict[str, datetime]:
    """When each certificate ends, by its path; relative below the directory of lifeboat.yaml.

    One that can't be parsed is reported and left out: it is backed up all the same.
    """
    found: dict[str, datetime] = {}
    unreadable = []
    for path in _files(places.values()):
        name = name_of(settings, path)
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


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_file():
            yield place
            continue
        yield from sorted(Path(entry.path) for entry in filesystem.walk(place))


def name_of(settings: Settings, path: Path) -> str:
    """A path as lifeboat.yaml would name it: relative below its directory, else absolute."""
    if path.is_relative_to(settings.directory):
        return os.fspath(path.relative_to(settings.directory))
    return os.fspath(path)


def tell_expiring(settings: Settings, facts: Facts) -> tuple[Expiring, ...]:
    """Warn of every certificate that ends within `watch.certificate_days`, or has ended."""
    found = expiring(facts.certificates, now=clock.now(), days=settings.watch.certificate_days)
    for certificate in found:
        log.warning("%s.", certificate.in_words())
    if found:
        current_run().fact(certificates_expiring=", ".join(one.path for one in found))
    return found
