"""lifeboat.yaml: what is right is read, what is wrong is named with its line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lifeboat.core.errors import SettingsError
from lifeboat.settings import Settings, load_settings

GOOD = """\
platform: cad-ai-staging
environment: staging
secrets_file: .env.production
stack:
  kind: process
  supervisor_config: config/supervisord.conf
  critical_services: [postgres, redis, backend]
database:
  service: postgres
  name: cad
  data_directory: data/postgres
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml, config]}
vault:
  local: backups
  s3: {endpoint: "http://127.0.0.1:8333", bucket: lifeboat-vault}
"""
CANARY = "canary-secret-9f2c"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "lifeboat.yaml"
        path.write_text(text)
        return path

    return write


def test_paths_belong_to_the_directory_of_the_file(write, tmp_path: Path) -> None:
    settings = load_settings(write(GOOD))
    assert settings.database.data_directory == tmp_path / "data/postgres"
    assert settings.files.directories == {"drawings": tmp_path / "data/files"}
    assert settings.config.paths == (tmp_path / "lifeboat.yaml", tmp_path / "config")
    assert settings.directory == tmp_path


def test_the_environment_names_the_file(write, monkeypatch) -> None:
    monkeypatch.setenv("LIFEBOAT_CONFIG", str(write(GOOD)))
    assert load_settings().platform == "cad-ai-staging"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  name: cad\n", "  nmae: cad\n", "did you mean 'name'?"),
        ("  name: cad\n", "", "database.name is missing"),
        ("environment: staging", "environment: moon", "lifeboat.yaml:2: environment"),
        ("  name: cad\n", "  name: cad\n  port: 99999\n", "lifeboat.yaml:11: database.port"),
        ("platform: cad", "platform: [", "line"),
        ("platform: cad-ai-staging", "platform: a\nplatform: b", "duplicate"),
        ("kind: process", "kind: podman", "stack"),
        ("[postgres, redis, backend]", "[postgres, redis, redis]", "'redis' twice"),
        ("[postgres, redis, backend]", "[redis, backend]", "not among stack.critical_services"),
        ("local: backups", "local: data", "lies inside vault.local"),
        ("local: backups", "local: data/files/vault", "backed up into itself"),
    ],
)
def test_what_is_wrong_is_named(write, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(SettingsError) as caught:
        load_settings(write(GOOD.replace(old, new)))
    assert told in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(write) -> None:
    text = GOOD.replace("  name: cad\n", "").replace("environment: staging", "environment: moon")
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text))
    assert "database.name" in str(caught.value)
    assert "environment" in str(caught.value)


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--config"):
        load_settings(tmp_path / "nowhere.yaml")


def test_secrets_come_from_the_environment_before_the_file(write, tmp_path, monkeypatch) -> None:
    settings = load_settings(write(GOOD))
    secrets = tmp_path / ".env.production"
    secrets.write_text("# comment\nLIFEBOAT_VAULT_PASSWORD='from file'\n")
    secrets.chmod(0o600)
    assert settings.secret("LIFEBOAT_VAULT_PASSWORD") == "from file"
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", CANARY)
    assert settings.secret("LIFEBOAT_VAULT_PASSWORD") == CANARY
    assert settings.fill("Bearer ${LIFEBOAT_VAULT_PASSWORD}!") == f"Bearer {CANARY}!"
    assert CANARY not in repr(settings)
    assert CANARY.encode() not in pickle.dumps(settings)


def test_a_secrets_file_that_others_can_read_is_refused(write, tmp_path) -> None:
    settings = load_settings(write(GOOD))
    secrets = tmp_path / ".env.production"
    secrets.write_text("LIFEBOAT_VAULT_PASSWORD=x\n")
    secrets.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        settings.secret("LIFEBOAT_VAULT_PASSWORD")


def test_a_missing_secret_says_where_to_set_it(write, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID.*not set"):
        load_settings(write(GOOD)).secret("AWS_ACCESS_KEY_ID")


def test_settings_survive_a_pickle(write) -> None:
    settings = load_settings(write(GOOD))
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert again.directory == settings.directory


def test_every_key_is_documented() -> None:
    pending, seen = [Settings], set()
    while pending:
        model = pending.pop()
        seen.add(model)
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            for part in [field.annotation, *getattr(field.annotation, "__args__", ())]:
                if isinstance(part, type) and hasattr(part, "model_fields") and part not in seen:
                    pending.append(part)
