"""lifeboat.yaml: what is right is read, what is wrong is named with its line."""

from __future__ import annotations

import pickle
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from lifeboat.core.errors import SettingsError
from lifeboat.settings import SECRETS, Settings, load_settings

GOOD = """\
platform: cad-ai-staging
environment: staging
secrets_file: .env.production
stack:
  kind: process
  supervisor_config: config/supervisord.conf
  critical_services: [postgres, redis, backend]
  deferred_services: [metrics]
database:
  service: postgres
  name: cad
  data_directory: data/postgres
files: {directories: {drawings: data/files}, services: [backend]}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml, config]}
vault:
  local: backups
  s3: {endpoint: "http://127.0.0.1:8333", bucket: lifeboat-vault}
checks:
  sessions:
    user:
      login: {url: /login, json: {password: "${LIFEBOAT_CHECK_PASSWORD}"}, save: {token: token}}
  search:
    session: user
    requests:
      - url: /search
        expect: {contains: bracket}
"""
CANARY = "canary-secret-9f2c"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "lifeboat.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def write_secrets(tmp_path: Path):
    def write(text: str, *, mode: int = 0o600) -> Path:
        path = tmp_path / ".env.production"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def refused(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return str(caught.value)


def test_paths_belong_to_the_directory_of_the_file(write, tmp_path: Path) -> None:
    settings = load_settings(write(GOOD))
    assert settings.database.data_directory == tmp_path / "data/postgres"
    assert settings.files.directories == {"drawings": tmp_path / "data/files"}
    assert settings.config.paths == (tmp_path / "lifeboat.yaml", tmp_path / "config")
    assert settings.secrets_file == tmp_path / ".env.production"
    assert settings.directory == tmp_path
    assert settings.file == tmp_path / "lifeboat.yaml"


def test_an_absolute_path_stays(write) -> None:
    settings = load_settings(write(GOOD.replace("local: backups", "local: /backups")))
    assert settings.vault.local == Path("/backups")


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("https://host/cad.git", "https://host/cad.git"),
        ("git@host:cad.git", "git@host:cad.git"),
        ("../cad.git", "{above}/cad.git"),
        ("repository", "{here}/repository"),
    ],
)
def test_a_repository_is_a_url_or_a_path(write, tmp_path, told: str, meant: str) -> None:
    text = GOOD + f"code: {{repository: '{told}', directory: app}}\n"
    settings = load_settings(write(text))
    assert settings.code.repository == meant.format(here=tmp_path, above=tmp_path.parent)


def test_the_environment_names_the_file(write, monkeypatch) -> None:
    monkeypatch.setenv("LIFEBOAT_CONFIG", str(write(GOOD)))
    assert load_settings().platform == "cad-ai-staging"


def test_without_a_name_it_is_the_file_of_the_current_directory(
    write, tmp_path, monkeypatch
) -> None:
    write(GOOD)
    monkeypatch.delenv("LIFEBOAT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert load_settings().file == tmp_path / "lifeboat.yaml"


def test_a_compose_stack_has_other_keys(write) -> None:
    text = GOOD.replace("kind: process", "kind: compose").replace(
        "supervisor_config: config/supervisord.conf", "compose_file: docker-compose.prod.yml"
    )
    assert load_settings(write(text)).stack.compose_file.name == "docker-compose.prod.yml"


COMPOSE = GOOD.replace("kind: process", "kind: compose").replace(
    "supervisor_config: config/supervisord.conf", "compose_file: docker-compose.prod.yml"
)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("volume:cad_pgdata", "/var/lib/docker/volumes/cad_pgdata/_data"),
        ("volume:cad_pgdata/17/main", "/var/lib/docker/volumes/cad_pgdata/_data/17/main"),
    ],
)
def test_a_volume_is_where_docker_keeps_it(write, told: str, meant: str) -> None:
    settings = load_settings(write(COMPOSE.replace("data/postgres", told)))
    assert settings.database.data_directory == Path(meant)


def test_docker_may_keep_its_volumes_elsewhere(write, tmp_path: Path) -> None:
    text = COMPOSE.replace("data/postgres", "volume:cad_pgdata")
    elsewhere = text.replace("kind: compose", "kind: compose\n  volumes_directory: /mnt/volumes")
    settings = load_settings(write(elsewhere))
    assert settings.database.data_directory == Path("/mnt/volumes/cad_pgdata/_data")
    below = text.replace("kind: compose", "kind: compose\n  volumes_directory: docker/volumes")
    settings = load_settings(write(below))
    assert settings.database.data_directory == tmp_path / "docker/volumes/cad_pgdata/_data"


@pytest.mark.parametrize("wrong", ["volume:", "volume:a b", "volume:a/../../etc"])
def test_what_is_no_volume_is_refused(write, wrong: str) -> None:
    with pytest.raises(SettingsError, match="data_directory: a volume is `volume:NAME`"):
        load_settings(write(COMPOSE.replace("data/postgres", f'"{wrong}"')))


def test_lifeboats_own_services_may_run_beside(write, tmp_path: Path) -> None:
    text = COMPOSE.replace(
        "kind: compose",
        "kind: compose\n  backup_services: [wal-receiver]\n"
        "  backup_stack: {kind: process, supervisor_config: lifeboat.conf}",
    )
    settings = load_settings(write(text))
    assert settings.stack.backup_stack.supervisor_config == tmp_path / "lifeboat.conf"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  name: cad\n", "  nmae: cad\n", ":11: database.nmae: there is no such key; did you m"),
        ("  name: cad\n", "", ":9: database.name: it is required and missing."),
        ("environment: staging", "environment: moon", ":2: environment: input should be 'stag"),
        ("  name: cad\n", "  name: cad\n  port: 99999\n", ":12: database.port: input should be le"),
        ("kind: process", "kind: podman", ":4: stack: input tag 'podman'"),
        ("supervisor_config", "supervisor_confg", "did you mean `supervisor_config`?"),
        ("bucket: lifeboat-vault", "bucket: X", ":18: vault.s3.bucket: string should match"),
        ("  s3: {", "  s4: {", ":16: vault.s3: it is required: without a copy off this host"),
        ("[postgres, redis, backend]", "[postgres, redis, redis]", ":7: stack.critical_services.2"),
        ("[metrics]", "[redis]", ":8: stack.deferred_services.0: service redis is already in"),
        ("kind: process", "kind: process\n  without: {redis: x}", ": service redis is in critical"),
        (
            "kind: process",
            "kind: process\n  without: {migrate: ''}",
            "stack.without.migrate: string",
        ),
        ("[postgres, redis, backend]", "[redis, backend]", ":10: database.service: postgres is"),
        ("services: [backend]", "services: [bakend]", "did you mean `backend`?"),
        ("{models: data/models}", "{drawings: data/models}", ":14: models.directories.drawings"),
        ("{models: data/models}", "{models: data/files/m}", ":14: models.directories.models: "),
        ("[lifeboat.yaml, config]", "[config, b/config]", ":15: config.paths.1: another path"),
        ("local: backups", "local: data", "lies in the vault"),
        ("local: backups", "local: data/files/vault", "it would back up itself"),
        (
            "{paths: [lifeboat.yaml, config]}",
            "{paths: [config], public: {repository: ../c.git, paths: [config/nginx, compose.yml]}}",
            ":15: config.public.paths.1: {tmp}/compose.yml is not in config.paths, so that the va",
        ),
        (
            "config]}",
            "config], public: {repository: c, paths: [config], not_secret: [AWS_ACCESS_KEY_ID]}}",
            ":15: config.public.not_secret.0: AWS_ACCESS_KEY_ID is a secret (access key of",
        ),
        (
            "    session: user",
            "    session: usr",
            ":24: checks.search.session: checks.sessions has",
        ),
        ("expect: {", "exepct: {", ":27: checks.search.requests.0.exepct: there is no such key"),
        ("{url: /login, json", "{url: /login, jsn", "did you mean `json`?"),
        ("  search:", "  serach:", ":23: checks.serach: there is no such key; did you mean `searc"),
        ("checks:", "checks:\n  timeouts: {serach: 3}", "no check is named serach"),
        ("checks:", "checks:\n  without: {search: none}", "search is set: remove one"),
        ("checks:", "checks:\n  without: {tables-complete: no}", "no platform is without tables"),
        (
            "checks:",
            "status_page: {health: {bakend: {url: /health}}}\nchecks:",
            "status_page.health.bakend: bakend is no service that the page shows; did you mean",
        ),
        (
            "checks:",
            "status_page: {hosted: {page: p, token: in-clear}}\nchecks:",
            "status_page.hosted.token: string should match pattern",
        ),
        ("expect: {", "form: {a: b}\n        json: {a: b}\n        expect: {", "either `json`"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, tmp_path, old, new, told) -> None:
    assert old in GOOD
    assert told.replace("{tmp}", str(tmp_path)) in refused(write(GOOD.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            GOOD.replace("platform: cad", "platform: [cad"),
            "lifeboat.yaml:2: this is not valid YAML",
        ),
        (GOOD + f"platform: {CANARY}\n", ':28: this is not valid YAML: found duplicate key "platf'),
        (GOOD.replace("  local", "\tlocal"), "lifeboat.yaml:17: this is not valid YAML"),
        ("", "there are no settings in it"),
        ("- a\n- b\n", "there are no settings in it"),
        ("platform: \x00\n", "lifeboat.yaml: this is not valid YAML"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(write, text: str, told: str) -> None:
    said = refused(write(text))
    assert told in said
    assert CANARY not in said


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lifeboat.yaml"
    path.write_bytes(b"platform: \xff\xfe\n")
    assert "UTF-8" in refused(path)


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file(write) -> None:
    text = GOOD.replace("  name: cad\n", "").replace("environment: staging", "environment: moon")
    said = refused(write(text))
    assert "2 mistakes" in said
    assert said.index("environment") < said.index("database.name")


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    assert "--config" in refused(tmp_path / "nowhere.yaml")


def test_secrets_come_from_the_environment_before_the_file(
    write, write_secrets, monkeypatch
) -> None:
    settings = load_settings(write(GOOD))
    monkeypatch.delenv("LIFEBOAT_VAULT_PASSWORD", raising=False)
    write_secrets("# comment\nexport A=b\nLIFEBOAT_VAULT_PASSWORD='from = file'\n")
    assert settings.secret("LIFEBOAT_VAULT_PASSWORD") == "from = file"
    assert settings.secret("A") == "b"
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", CANARY)
    assert settings.secret("LIFEBOAT_VAULT_PASSWORD") == CANARY
    assert settings.fill("Bearer ${LIFEBOAT_VAULT_PASSWORD}!") == f"Bearer {CANARY}!"
    assert CANARY not in repr(settings)
    assert CANARY.encode() not in pickle.dumps(settings)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_secrets_file_of_others_is_refused(write, write_secrets, mode: int) -> None:
    write_secrets("LIFEBOAT_VAULT_PASSWORD=x\n", mode=mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_settings(write(GOOD)).secret("B")


def test_a_damaged_secrets_file_is_told_without_its_secrets(write, write_secrets) -> None:
    write_secrets(f"A=b\n{CANARY}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(write(GOOD)).secret("B")
    assert ".env.production:2 is not KEY=VALUE" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_missing_secret_says_what_it_is_and_where_to_set_it(write, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(SettingsError) as caught:
        load_settings(write(GOOD)).secret("AWS_ACCESS_KEY_ID")
    assert "AWS_ACCESS_KEY_ID (access key of the bucket): it is not set" in str(caught.value)
    assert ".env.production (which does not exist)" in str(caught.value)


def test_an_empty_secret_is_a_missing_one(write, write_secrets, monkeypatch) -> None:
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", "")
    write_secrets("LIFEBOAT_VAULT_PASSWORD=\n")
    assert load_settings(write(GOOD)).optional_secret("LIFEBOAT_VAULT_PASSWORD") is None


def test_every_secret_is_known_and_what_is_said_to_be_none_is_not(
    write, write_secrets, monkeypatch
) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    public = (
        "config: {paths: [config], public: {repository: 'https://token-1@host/c.git', "
        "paths: [config], not_secret: [PORT]}}"
    )
    code = "code: {repository: 'https://me:password-1@host/cad.git', directory: app}\n"
    text = GOOD.replace("config: {paths: [lifeboat.yaml, config]}", public) + code
    settings = load_settings(write(text))
    write_secrets("PORT=5432\nDATABASE_PASSWORD='in the file'\nAWS_ACCESS_KEY_ID=file\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    assert {(secret.name, secret.value) for secret in settings.known_secrets()} == {
        ("DATABASE_PASSWORD", "in the file"),
        ("AWS_ACCESS_KEY_ID", "file"),
        ("AWS_ACCESS_KEY_ID", "environment"),
        ("code.repository", "password-1"),
        ("config.public.repository", "token-1"),
    }


def test_settings_survive_a_pickle(write) -> None:
    settings = load_settings(write(GOOD))
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert again.directory == settings.directory


def test_restic_is_the_configured_one_or_that_of_the_set_up(write, tmp_path, monkeypatch) -> None:
    text = GOOD.replace("  local: backups", "  local: backups\n  restic_program: bin/restic")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/restic").touch()
    assert load_settings(write(text)).restic_program() == tmp_path / "bin/restic"
    program = tmp_path / ".lifeboat/tools/bin/restic"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.chdir(tmp_path)
    assert load_settings(write(GOOD)).restic_program() == program


def models_below(annotation, seen: set) -> Iterator[type[BaseModel]]:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_model and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_below(field.annotation, seen)
    for argument in typing.get_args(annotation):
        yield from models_below(argument, seen)


def test_every_key_is_documented() -> None:
    models = list(models_below(Settings, set()))
    assert len(models) > 30
    for model in models:
        assert model.model_config["extra"] == "forbid", model
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            assert field.description.endswith((".", "...")), f"{model.__name__}.{name}"
