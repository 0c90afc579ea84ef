"""The stability watch on a real platform: it learns, compares, tells, and ends by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.settings import Settings, load_settings
from staging.site import Site
from tasks import clock, stability, vault
from tasks.people import followups
from tests.system import settings_file

pytestmark = [pytest.mark.system]

SOURCE = "recover-database-20260601T000000Z-4f2a"


@pytest.fixture(scope="module")
def settings(staging_site: Site) -> Iterator[Settings]:
    changes = {**settings_file.QUICK_CHECKS, "vault.s3.prefix": "stability"}
    settings_file.change(staging_site.settings_path, changes)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in staging_site.environment().items():
            patch.setenv(name, value)
        found = load_settings(staging_site.settings_path)
        vault.prepare_vault(found)
        yield found


def test_it_learns_compares_tells_and_ends(staging_site: Site, settings: Settings) -> None:
    now = datetime.now(timezone.utc)
    with clock.set_to(now - timedelta(hours=1)):
        everyday = stability.look(settings)
    assert everyday and everyday.good and not everyday.source
    assert {"backend", "postgres"} <= set(everyday.sample.services)
    assert everyday.sample.answer_seconds
    assert everyday.sample.services["backend"].log is not None
    usual = stability.read_baseline(settings)
    assert usual and usual.samples == 1 and usual.services["backend"].memory_bytes > 1e6

    with clock.set_to(now):
        followups.open_for(settings, SOURCE)
        first = stability.look(settings)
    assert first and first.source == SOURCE
    assert first.sample.checks == 14
    assert not {d.what for d in first.drifts} & {"backend", "authentication", "search"}

    staging_site.stack.stop(["ai"] if "ai" in everyday.sample.services else ["backend"])
    with clock.set_to(now + timedelta(minutes=15)):
        broken = stability.look(settings)
    assert broken and not broken.good
    assert any("does not run" in drift.told for drift in broken.drifts)
    assert broken.in_words()
    # What was seen during the watch is not what is usual.
    assert stability.read_baseline(settings) == usual

    staging_site.start()
    with clock.set_to(now + timedelta(hours=24, minutes=1)):
        stability.look(settings)
        found = {one.name: one for one in followups.read_all(settings)}
    assert found["monitor-stability"].is_done
    [told] = found["monitor-stability"].notes
    assert told.startswith("3 looks in 24.0 hours") and "1 looks until" in told
    assert found["review-logs"].notes
    assert not stability.open_watches(settings)
    with clock.set_to(now + timedelta(hours=25)):
        after = stability.look(settings)
    assert after and not after.source


def test_a_command_says_it_with_its_exit_code(staging_site: Site, settings: Settings, lifeboat):
    done = lifeboat(staging_site.settings_path, "stability", "--json", **staging_site.environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drifts"] == []
