"""A store that nobody backs up is found, in directories and in compose files."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from ruamel.yaml import YAML

from lifeboat.core import coverage
from lifeboat.core.coverage import Place, Protected, compare, places_of_compose
from lifeboat.core.errors import PreconditionError

ROOT = PurePath("/srv/cad")


def protect(*paths: str, **excused: str) -> Protected:
    return Protected(paths=tuple(ROOT / path for path in paths), excused=excused)


def beside(*names: str) -> tuple[Place, ...]:
    children = [ROOT / "data" / name for name in names]
    return coverage.places_beside(
        children, protected=[ROOT / "data/postgres", ROOT / "data/files"], directory=ROOT
    )


# --- directories ----------------------------------------------------------------------------


def test_a_directory_beside_a_protected_one_is_protected_or_excused() -> None:
    places = beside("postgres", "files", "redis", "wiki")
    found = compare(places, protect("data/postgres", "data/files", **{"data/redis": "a cache"}))
    assert found.covered == 2
    assert found.excused == {"data/redis": "a cache"}
    assert list(found.uncovered) == ["data/wiki"]


@pytest.mark.parametrize("name", ["./data/redis", "data/redis/", "/srv/cad/data/redis"])
def test_an_excuse_may_be_written_in_several_ways(name: str) -> None:
    assert compare(beside("redis"), protect(**{name: "a cache"})).uncovered == {}


def test_an_excuse_needs_a_reason() -> None:
    found = compare(beside("redis"), protect(**{"data/redis": " "}))
    assert "without a reason" in found.uncovered["data/redis"]


def test_an_excuse_for_nothing_is_told() -> None:
    assert compare(beside(), protect(**{"data/reddis": "x"})).unused_excuses == ("data/reddis",)


def test_what_a_recovery_kept_aside_is_no_store() -> None:
    assert beside("postgres.damaged-recover-database-20261125T010203Z-ab12", "lost+found") == ()


def test_a_place_of_which_only_a_part_is_protected_is_told() -> None:
    found = compare([Place("data", ROOT / "data", "x")], protect("data/files"))
    assert "/srv/cad/data/files in it is protected" in found.uncovered["data"]


def test_below_directories_of_the_system_nothing_is_looked_for() -> None:
    protected = [PurePath("/var/lib/postgresql"), PurePath("/drawings"), ROOT / "data/files"]
    assert coverage.parents_to_look_in(protected) == (ROOT / "data",)


# --- compose --------------------------------------------------------------------------------

COMPOSE = """
name: ignored-here
services:
  postgres:
    volumes: ["pgdata:/var/lib/postgresql/data"]
    env_file: .env.production
  redis:
    volumes:
      - type: volume
        source: cache
        target: /data
      - {type: tmpfs, target: /tmp}
  backend:
    volumes:
      - ./storage/drawings:/drawings
      - ${MODELS_DIR:-./models}:/models:ro
      - /var/run/docker.sock:/var/run/docker.sock
      - /etc/localtime:/etc/localtime:ro
    env_file: [{path: ./more.env, required: false}]
    secrets: [key]
  worker:
    volumes: ["./storage/drawings:/drawings", "/scratch"]
  search: {image: opensearch, volumes: ["outside:/index", "mapped:/m", "named:/n"]}
  bare:
volumes:
  pgdata:
  cache: {}
  outside: {external: true}
  mapped: {driver_opts: {type: none, o: bind, device: /mnt/mapped}}
  named: {name: my-own-name}
configs: {nginx: {file: ./nginx/nginx.conf}}
secrets: {key: {file: ../keys/key.pem}, other: {environment: KEY}}
"""


def compose(text: str = COMPOSE, **variables: str) -> dict[str, Place]:
    told = YAML(typ="safe").load(text)
    found = places_of_compose(told, directory=ROOT, project="cad", variables=variables)
    return {place.name: place for place in found}


def test_every_volume_and_mount_of_a_compose_file_is_a_place() -> None:
    found = compose()
    assert {name: place.volume or str(place.path) for name, place in found.items()} == {
        "pgdata": "cad_pgdata",
        "cache": "cad_cache",
        "storage/drawings": "/srv/cad/storage/drawings",
        "models": "/srv/cad/models",
        "worker:/scratch": "None",
        "outside": "outside",
        "mapped": "cad_mapped",
        "named": "my-own-name",
        ".env.production": "/srv/cad/.env.production",
        "more.env": "/srv/cad/more.env",
        "nginx/nginx.conf": "/srv/cad/nginx/nginx.conf",
        "/srv/keys/key.pem": "/srv/keys/key.pem",
    }
    assert found["storage/drawings"].what == "mounted in backend, mounted in worker"
    assert found["mapped"].path == PurePath("/mnt/mapped")


def test_a_variable_names_the_place() -> None:
    assert compose(MODELS_DIR="/big/models")["/big/models"].path == PurePath("/big/models")


def test_a_volume_is_protected_where_docker_keeps_it() -> None:
    volumes = PurePath("/var/lib/docker/volumes")
    paths = [volumes / "cad_pgdata" / "_data", PurePath("/mnt/mapped"), ROOT]
    found = compare(
        compose().values(), Protected(paths=paths, excused={"cache": "a cache", "outside": "index"})
    )
    assert set(found.uncovered) == {"named", "worker:/scratch", "/srv/keys/key.pem"}
    assert set(found.excused) == {"cache", "outside"}


def test_a_volume_of_which_only_a_part_is_protected_is_told() -> None:
    part = PurePath("/var/lib/docker/volumes/cad_pgdata/_data/uploads")
    found = compare([compose()["pgdata"]], Protected(paths=[part], excused={}))
    assert "uploads in it is protected" in found.uncovered["pgdata"]


def test_a_volume_may_be_excused_by_its_full_name() -> None:
    found = compare([compose()["cache"]], Protected(paths=[], excused={"cad_cache": "a cache"}))
    assert found.uncovered == {}


@pytest.mark.parametrize("told", [None, [], {}, {"services": []}, "text"])
def test_what_is_no_compose_file_is_refused(told: object) -> None:
    with pytest.raises(PreconditionError, match="no services"):
        places_of_compose(told, directory=ROOT, project="cad", variables={})
