"""Production is not touched without a person's word, whatever its lifeboat.yaml says of itself."""

from __future__ import annotations

import socket
from datetime import datetime, timezone

import pytest

from lifeboat.core.errors import NotApproved, PreconditionError
from lifeboat.core.forms import RecoverFiles
from lifeboat.core.marks import Kind
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, DatabaseFacts, Facts
from lifeboat.core.production import Production
from tasks import approval, marks, places, production

pytestmark = [pytest.mark.system]

PREAPPROVED = RecoverFiles(approval="preapproved")
PLAN = RecoveryPlan(
    procedure="recover-files",
    platform="cad-test",
    symptoms="-",
    points=(),
    target="-",
    expected_loss="-",
    touches=(),
    steps=(),
    made_at=datetime(2026, 1, 31, tzinfo=timezone.utc),
)


def facts(system_identifier: str) -> Facts:
    told = DatabaseFacts.model_construct(system_identifier=system_identifier)
    return Facts.model_construct(
        point="database-1", asset=Asset.DATABASE, platform="cad", host="erfurt", database=told
    )


def test_staging_goes_without_a_person_and_production_does_not(host) -> None:
    approval.approve(PLAN, PREAPPROVED, host.settings)
    with pytest.raises(PreconditionError, match="without lifeboat.yaml nobody knows"):
        approval.approve(PLAN, PREAPPROVED, None)
    yaml = host.root / "lifeboat.yaml"
    yaml.write_text(yaml.read_text().replace("environment: staging", "environment: production"))
    with pytest.raises(PreconditionError, match="is production.*--approve cad-test"):
        approval.approve(PLAN, PREAPPROVED, host.settings)


@pytest.mark.parametrize(
    ("known", "shared"),
    [
        ("{platform: cad-test}", "the name cad-test"),
        (f"{{platform: cad, host: {socket.gethostname()}}}", "the host "),
        ("{system_identifier: 7411}", "the database system identifier 7411"),
    ],
)
def test_what_shares_something_with_production_is_refused(host, known, shared) -> None:
    (places.wal_directory(host.settings) / "7411").mkdir(parents=True)
    host.write_yaml(sections="known_production: [{platform: cad, host: h, system_identifier: 1}]\n")
    approval.approve(PLAN, PREAPPROVED, host.settings)
    host.write_yaml(sections=f"known_production: [{known}]\n")
    with pytest.raises(PreconditionError, match=f"has {shared}.* in common with production"):
        approval.approve(PLAN, PREAPPROVED, host.settings)


def test_a_backup_of_production_is_remembered_by_the_vault(host) -> None:
    """So that whoever writes `staging` into its settings is told."""
    production.remember(host.settings, facts("7411"))
    assert marks.read_all(host.settings, Kind.PRODUCTION) == {}, "it is staging"
    yaml = host.root / "lifeboat.yaml"
    honest = yaml.read_text()
    yaml.write_text(honest.replace("environment: staging", "environment: production"))
    production.remember(host.settings, facts("7411"))
    yaml.write_text(honest)
    # Another host of the same vault: the bucket knows it.
    marks.path_of(host.settings, Kind.PRODUCTION, "cad-test").unlink()
    assert marks.read_all(host.settings, Kind.PRODUCTION) == {
        "cad-test": Production(platform="cad-test", host="erfurt", system_identifier="7411")
    }
    with pytest.raises(PreconditionError, match="the name cad-test"):
        approval.approve(PLAN, PREAPPROVED, host.settings)
    host.write_yaml(endpoint="http://127.0.0.1:9")
    with pytest.raises(PreconditionError, match="can't be read"):
        approval.approve(PLAN, PREAPPROVED, host.settings)


def test_a_name_that_was_typed_is_a_persons_word(host, monkeypatch) -> None:
    yaml = host.root / "lifeboat.yaml"
    yaml.write_text(yaml.read_text().replace("environment: staging", "environment: production"))
    monkeypatch.setattr(approval, "_typed", "cad-test")
    approval.approve(PLAN, RecoverFiles(), host.settings)
    monkeypatch.setattr(approval, "_typed", "cad-tset")
    with pytest.raises(NotApproved, match="'cad-tset' was typed, and the platform is 'cad-test'"):
        approval.approve(PLAN, RecoverFiles(), host.settings)
