"""prefect.yaml: what it declares, and which mistakes are told before anything is deployed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lifeboat.core.errors import SettingsError
from tasks.prefect_server import deployment

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = SimpleNamespace(
    platform="cad", file=Path("/srv/cad/lifeboat.yaml"), orchestrator=SimpleNamespace()
)
TEXT = deployment.DECLARATION.read_text()


def declared(tmp_path: Path, text: str):
    file = tmp_path / "prefect.yaml"
    file.write_text(text)
    return deployment.read_declaration(SETTINGS, file)


def test_every_flow_is_deployed_for_the_platform() -> None:
    found = deployment.read_declaration(SETTINGS)
    flows = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}
    flows.remove("enrol")  # once, on the host, before anything else can work
    flows.remove("recover_orchestrator")  # replaces the database that would hold its own run
    assert {d.flow for d in found.deployments} == flows
    assert {d.name for d in found.deployments} == {f"cad.{f.replace('_', '-')}" for f in flows}
    assert {d.work_pool.work_queue_name for d in found.deployments} == {"cad"}
    told = [dict(d.parameters["request"]) for d in found.deployments if d.parameters]
    config = {"config": "/srv/cad/lifeboat.yaml"}
    assert [t for t in told if t != config] == [{"record_in": config["config"]}], (
        "but for the drill"
    )


def test_what_needs_a_section_is_not_deployed_without_it() -> None:
    """It would fail each hour, and somebody would be told each hour."""
    without = SimpleNamespace(platform="cad", file=SETTINGS.file, orchestrator=None)
    every = {d.flow for d in deployment.read_declaration(SETTINGS).deployments}
    assert every - {d.flow for d in deployment.read_declaration(without).deployments} == {
        "backup_orchestrator"
    }


def test_a_drill_is_not_deployed_where_it_can_not_run(monkeypatch, caplog) -> None:
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    left = {found.flow for found in deployment.read_declaration(SETTINGS).deployments}
    assert "drill" not in left
    assert "recover_server" in left
    assert "cad.drill is left out" in caplog.text


def test_every_flow_can_be_imported_and_takes_its_parameters() -> None:
    found = deployment.read_declaration(SETTINGS)
    flows = deployment.load_flows(found)
    assert flows.keys() == {d.entrypoint for d in found.deployments}


def test_backups_run_by_themselves_and_recoveries_never() -> None:
    for found in deployment.read_declaration(SETTINGS).deployments:
        kind = found.flow.split("_")[0]
        asked = ("verify", "diagnose", "follow", "review", "open", "update", "close")
        by_hand = ("recover", "provision", *asked)
        assert bool(found.schedules) is (kind not in by_hand), found.flow
        if kind in ("recover", "provision"):
            assert "recovery" in found.tags
            assert found.concurrency_limit is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    schedules:", "    schedles:", r"schedles: there is no such key; did you mean `sche"),
        ("    parameters: *platform", "    parameter: *platform", "did you mean `parameters`"),
        (", active: true}", "}", r"schedules\.0\.active: it is required"),
        ("slug: daily, ", "", r"schedules\.0\.slug: it is required"),
        ("CANCEL_NEW", "ENQUEUE", "one backup is wanted, not forty"),
        ("tags: [lifeboat, ", "tags: [x, ", "lack lifeboat, so that it would never be removed"),
        ('tags: [lifeboat, "{{ $LIFEBOAT_PLATFORM }}"', "tags: [lifeboat, x", "would never be rem"),
        (".ship-wal", ".ship", "does not end in the name of its flow, ship_wal"),
        ("flows.ship_wal.ship_wal", "flows/ship_wal.py:ship_wal", "entrypoint"),
        ("$LIFEBOAT_CONFIG", "$LIFEBOAT_CONFG", "no variable LIFEBOAT_CONFG"),
        ("enforce_parameter_schema: true", "enforce_parameter_schema: false", "enforce_parameter"),
        ("deployments:\n", "deployments: []\nmore:\n", "more: there is no such key"),
    ],
)
def test_a_mistake_is_told_before_anything_is_deployed(tmp_path, old, new, told) -> None:
    assert old in TEXT
    with pytest.raises(SettingsError, match=told):
        declared(tmp_path, TEXT.replace(old, new))


def test_a_recovery_with_a_schedule_or_a_limit_is_refused(tmp_path) -> None:
    tags = '    tags: [lifeboat, "{{ $LIFEBOAT_PLATFORM }}", recovery]\n'
    assert tags in TEXT
    for added in (
        "    concurrency_limit: *one\n",
        '    schedules: [{slug: x, cron: "0 0 * * *", active: true}]\n',
    ):
        text = TEXT.replace(tags, tags + added, 1)
        with pytest.raises(SettingsError, match="a recovery has no"):
            declared(tmp_path, text)


def test_two_deployments_of_one_name_are_refused(tmp_path) -> None:
    text = TEXT.replace("flows.ship_wal.ship_wal", "flows.backup_files.backup_files")
    text = text.replace(".ship-wal", ".backup-files")
    with pytest.raises(SettingsError, match=r"backup-files is declared twice"):
        declared(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "flows.ship_wal.ship_wal",
            "flows.ship_wall.ship_wal",
            "flows.ship_wall.ship_wal: .*No mod",
        ),
        ("flows.ship_wal.ship_wal", "flows.drill.ship_wal", "flows.drill.ship_wal: .*not found"),
        ("{request: {config:", "{request: {confg:", "parameters do not fit"),
    ],
)
def test_what_prefect_would_deploy_and_never_run_is_refused(tmp_path, old, new, told) -> None:
    with pytest.raises(SettingsError, match=told):
        deployment.load_flows(declared(tmp_path, TEXT.replace(old, new)))


def test_what_is_told_by_the_server_follows_from_the_schedules() -> None:
    from lifeboat.settings.alarms import Alarms, Channel
    from lifeboat.settings.model import Watch
    from tasks.prefect_server import automations

    channel = Channel(name="hook", url="json://127.0.0.1/hook")
    settings = SimpleNamespace(
        platform="cad",
        file=SETTINGS.file,
        alarms=Alarms(channels=(channel,)),
        watch=Watch(late_factor=2),
        fill=lambda url: url,
    )
    found = automations.read_wanted(settings, deployment.read_declaration(SETTINGS))
    named = {text[0]: trigger for text, trigger in zip(found.texts, found.triggers, strict=True)}
    assert named["cad.silent-backup-database"]["within"] == 2 * 6 * 3600
    assert named["cad.silent-backup-database-still"]["within"] == 24 * 3600
    assert named["cad.silent-ship-wal"]["within"] == 900, "no hiccup is told"
    # Both pools of a platform have a queue of its name: one that is back says nothing of the other.
    assert named["cad.worker-away"]["for_each"] == ["prefect.resource.id"]
    bodies = [text[3] for text in found.texts]
    assert not any("{{ $" in body for body in bodies)
    assert any("has not ended well for 12 h" in body for body in bodies)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("within_seconds: 600", "within_secs: 600", "within_secs"),
        ("ship-wal,", "ship-wax,", "declares no cad.ship-wax"),
        ("{{ $WINDOW }}", "{{ $WINDOWS }}", "there is no variable WINDOWS"),
        ("name: run-stuck", "name: run-crashed", "run-crashed is declared twice"),
    ],
)
def test_a_mistake_in_the_automations_is_told(tmp_path: Path, old: str, new: str, told: str):
    from lifeboat.settings.alarms import Alarms
    from lifeboat.settings.model import Watch
    from tasks.prefect_server import automations

    text = automations.DECLARATION.read_text()
    assert old in text
    file = tmp_path / "automations.yaml"
    file.write_text(text.replace(old, new))
    settings = SimpleNamespace(platform="cad", file=SETTINGS.file, alarms=Alarms(), watch=Watch())
    with pytest.raises(SettingsError, match=told):
        automations.read_wanted(settings, deployment.read_declaration(SETTINGS), file)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [("* * * * *", 60), ("7 */6 * * *", 21600), ("*/5 6-22 * * *", 7.0 * 3600 + 300)],
)
def test_the_longest_gap_of_a_schedule_counts(line: str, seconds: float) -> None:
    from lifeboat.tools import cron

    assert cron.longest_gap_seconds(line) == seconds
    with pytest.raises(ValueError, match="no cron line"):
        cron.longest_gap_seconds("every day")
