"""The staging platform of containers: nothing that it keeps is neither protected nor excused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from lifeboat.core import coverage
from lifeboat.settings import Settings, load_settings
from staging import compose_site
from staging.compose_site import ComposeSite
from staging.ports import Ports
from tasks import survey_host


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a site that was not made: no engine is asked."""
    site = ComposeSite(tmp_path)
    site.volumes = Path("/var/lib/docker/volumes")
    site.outside.mkdir(parents=True)
    ports = Ports(**{field.name: 20000 + n for n, field in enumerate(fields(Ports))})
    (site.outside / "ports.json").write_text(json.dumps(asdict(ports)))
    for name in ("app", *site.directories):
        (site.server / name).mkdir(parents=True)
    site._write_config()
    shutil.copy(
        Path(compose_site.__file__).with_name("docker-compose.prod.yml"), site.server / "app"
    )
    site.settings_path.write_text(site._render("lifeboat.yaml.j2", known_answers={"x": "y"}))
    return load_settings(site.settings_path)


def test_every_volume_is_protected_or_excused(settings: Settings) -> None:
    found = coverage.compare(survey_host._places(settings), survey_host.protected(settings))
    assert found.uncovered == {}
    assert found.unused_excuses == ()
    assert set(found.excused) == {"redis", "files", "logs", "collected", "metrics"}


def test_a_volume_that_is_added_is_told(settings: Settings) -> None:
    file = settings.stack.compose_file
    added = file.read_text().replace('"redis:/var/lib/redis"', '"redis:/var/lib/redis", "new:/new"')
    file.write_text(added)
    found = coverage.compare(survey_host._places(settings), survey_host.protected(settings))
    assert found.uncovered == {"new": "a volume of redis"}
