"""Configuration and models are backed up when they change; the public part goes to git as well."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.marks import Kind, Sighting
from lifeboat.core.points import Asset, Tier
from tasks import catalogue, certificates, marks, places, trees

pytestmark = [pytest.mark.system]

DEAD = "http://127.0.0.1:9"
PUBLIC = "  public: {{repository: ../config.git, paths: [config/nginx]{}}}"


def points(host, asset: Asset, tier: Tier | None = None) -> list[str]:
    tiers = (tier,) if tier else places.RESTIC_TIERS
    found = catalogue.list_points(host.settings, assets=(asset,), tiers=tiers)
    return [point.id for point in found]


def sighting(host, asset: Asset) -> Sighting:
    """As one sees it who has only the bucket."""
    found = marks.read(host.settings, Kind.SIGHTINGS, str(asset), from_bucket=True)
    assert isinstance(found, Sighting)
    return found


def test_configuration_gets_a_point_only_when_it_has_changed(host) -> None:
    before = datetime.now(timezone.utc)
    first = host.run("backup", "config").stdout.strip()
    seen, records = sighting(host, Asset.CONFIG), host.records()
    assert seen.holds == first
    assert before - timedelta(seconds=1) <= seen.as_of <= datetime.now(timezone.utc)

    again = host.run("backup", "config")
    assert again.stdout.strip() == first
    assert f"Config: unchanged since {first}, nothing to do" in again.stderr
    assert sighting(host, Asset.CONFIG).holds == first
    assert sighting(host, Asset.CONFIG).as_of > seen.as_of
    assert host.records() == records, "hundreds of looks a day leave no record"
    assert points(host, Asset.CONFIG) == [first]

    nginx = host.root / "config/nginx/nginx.prod.conf"
    os.utime(nginx)
    assert host.run("backup", "config").stdout.strip() == first
    nginx.chmod(0o600)
    second = host.run("backup", "config").stdout.strip()
    always = host.run("backup", "config", "--always", "--json").stdout
    third = json.loads(always)["point"]
    assert points(host, Asset.CONFIG) == [third, second, first]
    assert sighting(host, Asset.CONFIG).holds == third


def test_what_s3_never_got_is_given_to_it_and_an_outage_fills_no_disk(host) -> None:
    first = host.run("backup", "config").stdout.strip()
    (host.root / "config/nginx/nginx.prod.conf").write_text("listen 443;\n")
    host.write_yaml(endpoint=DEAD)
    assert "127.0.0.1:9" in host.run("backup", "config", ok=5).stderr
    [second, _] = points(host, Asset.CONFIG, Tier.LOCAL)
    host.run("backup", "config", ok=5)
    assert points(host, Asset.CONFIG, Tier.LOCAL) == [second, first], "no second copy of the same"
    host.write_yaml()
    assert sighting(host, Asset.CONFIG).holds == first

    # The settings are part of what is backed up; they have to be as they were in the outage.
    settings = host.settings
    trees.store_directories(settings, trees.gather_facts(settings, Asset.CONFIG))
    newest = catalogue.list_points(settings, assets=(Asset.CONFIG,))[0]
    places.repository(settings, Asset.CONFIG, Tier.S3).forget([newest.copies[Tier.S3]])
    here, records = points(host, Asset.CONFIG, Tier.LOCAL), host.records()
    again = host.run("backup", "config")
    assert again.stdout.strip() == newest.id
    assert f"s3 has not got {newest.id}, and is given it now" in again.stderr
    assert points(host, Asset.CONFIG, Tier.S3)[0] == newest.id
    assert points(host, Asset.CONFIG, Tier.LOCAL) == here
    assert len(host.records()) == len(records) + 1
    [whole, *_] = catalogue.list_points(settings, assets=(Asset.CONFIG,))
    facts = [catalogue.read_facts(settings, whole, tier) for tier in places.RESTIC_TIERS]
    assert facts[0] == facts[1]
    assert host.run("backup", "config").stdout.strip() == newest.id
    assert len(host.records()) == len(records) + 1


def test_models_get_a_point_when_they_change_and_every_day(host) -> None:
    first = host.run("backup", "models").stdout.strip()
    assert host.run("backup", "models").stdout.strip() == first
    settings = host.settings
    assert trees.find_unchanged(settings, Asset.MODELS, at_most_seconds=3600)
    assert trees.find_unchanged(settings, Asset.MODELS, at_most_seconds=0) is None
    os.utime(host.root / "data/models/default.bin", (1, 1))
    second = host.run("backup", "models").stdout.strip()
    assert points(host, Asset.MODELS) == [second, first]
    (host.root / "data/models/default.bin").unlink()
    assert "not one file" in host.run("backup", "models", ok=3).stderr
    assert sighting(host, Asset.MODELS).holds == second


def test_files_are_always_backed_up_and_seen(host) -> None:
    first, second = (host.run("backup", "files").stdout.strip() for _ in range(2))
    assert points(host, Asset.FILES) == [second, first]
    assert sighting(host, Asset.FILES).holds == second


# --- the public part ------------------------------------------------------------------------


@pytest.fixture
def public(host, tmp_path: Path):
    """The repository, and how to ask it."""
    host.write_yaml(PUBLIC.format(""))

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", tmp_path / "config.git", *words], capture_output=True, text=True
        )
        return done.stdout.strip()

    return git


def test_a_commit_says_what_changed_and_nothing_holds_a_secret(host, public) -> None:
    first = host.run("backup", "config").stdout.strip()
    assert public("log", "--format=%s", "main") == "Add config/nginx/nginx.prod.conf"
    assert f"Recovery point: {first}" in public("log", "--format=%b", "main")
    host.run("backup", "config")
    host.run("backup", "config", "--always")
    assert public("rev-list", "--count", "main") == "1"

    nginx = host.root / "config/nginx"
    (nginx / "nginx.prod.conf").write_text("listen 443;\n")
    (nginx / "gzip.conf").write_text("gzip on;\n")
    (host.root / ".env.production").write_text("CAD_PASSWORD=another-one\n")
    done = host.run("backup", "config")
    assert public("log", "-1", "--format=%s", "main") == (
        "Change config/nginx/nginx.prod.conf, add config/nginx/gzip.conf"
    )
    record = host.root / "backups/records/runs" / host.records()[-1] / "record.json"
    assert "gzip.conf" in json.loads(record.read_text())["facts"]["configuration_published"]
    assert "Published to branch main" in done.stderr

    (nginx / "gzip.conf").unlink()
    host.run("backup", "config")
    assert public("log", "-1", "--format=%s", "main") == "Remove config/nginx/gzip.conf"
    assert public("ls-tree", "-r", "--name-only", "main") == "config/nginx/nginx.prod.conf"


def test_a_secret_is_refused_by_name_and_the_vault_has_it_all_the_same(host, public) -> None:
    nginx = host.root / "config/nginx"
    holding = {
        "proxy.conf": (f"proxy_set_header X {host.canary};", "the value of CAD_PASSWORD"),
        "key.pem": ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        "root.conf": ("root data/files;", "the value of CAD_DIRECTORY"),
        "s3.conf": ("# test-secret-key", "the value of AWS_SECRET_ACCESS_KEY"),
    }
    for name, (text, _) in holding.items():
        (nginx / name).write_text(text)
    for _ in range(2):
        refused = host.run("backup", "config", ok=4)
        for name, (_, told) in holding.items():
            assert f"config/nginx/{name} holds {told}" in refused.stderr
        assert "nginx.prod.conf" not in refused.stderr
        assert not (host.root.parent / "config.git").exists(), "nothing of the change is committed"
        assert len(points(host, Asset.CONFIG, Tier.S3)) == 1, "the vault has it, once"

    for name in ("proxy.conf", "key.pem", "s3.conf"):
        (nginx / name).write_text("gzip on;\n")
    host.write_yaml(PUBLIC.format(", not_secret: [CAD_DIRECTORY]"))
    host.run("backup", "config")
    assert public("rev-list", "--count", "main") == "1"
    assert host.canary not in public("log", "--patch", "main")


def test_git_that_is_away_keeps_no_backup_and_the_next_run_catches_up(host, public) -> None:
    host.run("backup", "config")
    repository = host.root.parent / "config.git"
    repository.rename(host.root.parent / "away")
    repository.write_text("no repository")
    (host.root / "config/nginx/nginx.prod.conf").write_text("listen 443;\n")
    failed = host.run("backup", "config", ok=5)
    newest = points(host, Asset.CONFIG, Tier.S3)[0]
    assert f"The backup itself is in the vault ({newest})" in failed.stderr
    assert sighting(host, Asset.CONFIG).holds == newest

    repository.unlink()
    (host.root.parent / "away").rename(repository)
    later = host.run("backup", "config")
    assert "unchanged since" in later.stderr
    assert "what had waited" in later.stderr
    assert public("log", "-1", "--format=%s", "main") == "Change config/nginx/nginx.prod.conf"
    assert public("show", "main:config/nginx/nginx.prod.conf") == "listen 443;"


# --- certificates ---------------------------------------------------------------------------


def test_certificates_are_in_the_facts_and_those_that_end_are_told(host) -> None:
    from tests.unit.test_certificates import NOW, certificate

    certs = host.root / "config/certs"
    certs.mkdir()
    (certs / "old.pem").write_bytes(certificate(1))
    far = 365 * 60
    (certs / "new.pem").write_bytes(certificate(far))
    (certs / "cut.pem").write_bytes(certificate(far)[:100])
    done = host.run("backup", "config", "--json")
    ends = json.loads(done.stdout)["certificates"]
    assert set(ends) == {"config/certs/old.pem", "config/certs/new.pem"}
    assert datetime.fromisoformat(ends["config/certs/old.pem"]) == NOW + timedelta(days=1)
    assert "The certificate config/certs/old.pem ended" in done.stderr
    assert "cut.pem: it can't be parsed" in done.stderr
    assert "new.pem" not in done.stderr
    unchanged = host.run("backup", "config")
    assert "The certificate config/certs/old.pem ended" in unchanged.stderr

    settings = host.settings
    [newest] = catalogue.list_points(settings, assets=(Asset.CONFIG,), tiers=(Tier.S3,))
    facts = catalogue.read_facts(settings, newest, Tier.S3)
    assert [one.path for one in certificates.tell_expiring(settings, facts)] == [
        "config/certs/old.pem"
    ]
