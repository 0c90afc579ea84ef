"""What watching leaves behind for people, monitors and Prefect."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lifeboat.cli import watch
from lifeboat.core.objectives import judge
from lifeboat.core.requests import WatchObjectives
from lifeboat.core.survey import Cause, Receiver, Unseen
from lifeboat.tools import metrics
from tasks import events
from tasks.looking import seen
from tasks.objectives import Announcer
from tests.unit.objectives_fixtures import LIMITS, NOW, good_survey, with_host

GOOD = judge(good_survey(), LIMITS, NOW)
BAD = judge(with_host(good_survey(measured={}), receiver=Receiver(streaming=False)), LIMITS, NOW)


# --- Prometheus -----------------------------------------------------------------------------


def values(path: Path) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "platform"}
            assert sample.labels["platform"] == "cad"
            found[(sample.name, *labels.values())] = sample.value
    return found


def test_the_metrics_are_those_that_alerts_are_written_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lifeboat.prom"
    metrics.write(GOOD, path)
    told = values(path)
    assert told[("lifeboat_exposure_seconds", "files")] == 1200
    assert told[("lifeboat_objective_rpo_seconds", "server")] == 3600
    assert told[("lifeboat_objective_rto_seconds", "server")] == 14400
    assert told[("lifeboat_recovery_estimate_seconds", "files")] == pytest.approx(29)
    assert told[("lifeboat_backup_age_seconds", "database", "s3")] == 65 * 60
    assert told[("lifeboat_verified_age_seconds", "models")] == 20 * 3600
    assert told[("lifeboat_finding", "wal-receiver", "PASS")] == 1
    assert told[("lifeboat_finding", "wal-receiver", "FAIL")] == 0
    assert told[("lifeboat_good",)] == 1
    assert told[("lifeboat_watch_timestamp_seconds",)] == NOW.timestamp()


def test_what_is_not_known_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "lifeboat.prom"
    metrics.write(GOOD, path)
    metrics.write(BAD, path)
    told = values(path)
    assert ("lifeboat_recovery_estimate_seconds", "files") not in told
    assert told[("lifeboat_finding", "wal-receiver", "FAIL")] == 1
    assert told[("lifeboat_finding", "files-recovery-time", "UNKNOWN")] == 1
    assert told[("lifeboat_good",)] == 0
    assert [found.name for found in tmp_path.iterdir()] == ["lifeboat.prom"]


# --- people ---------------------------------------------------------------------------------


def test_the_table_fits_and_begins_with_what_is_worst(capsys) -> None:
    watch._print(BAD)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    statuses = [line.split("│")[1].strip() for line in lines if line.count("│") == 4]
    statuses = [status for status in statuses if status]
    assert statuses[0] == "FAIL"
    assert statuses == sorted(statuses, key=["FAIL", "UNKNOWN", "PASS"].index)
    assert "not good" in lines[-1]


def test_a_good_one_says_so(capsys) -> None:
    watch._print(GOOD)
    assert "all good" in capsys.readouterr().out


def test_the_log_tells_news_and_not_everything_each_time(caplog) -> None:
    announcer = Announcer()
    with caplog.at_level(logging.INFO, logger="lifeboat"):
        announcer.tell(BAD)
        assert "FAIL wal-receiver" in caplog.text
        caplog.clear()
        announcer.tell(BAD)
        assert caplog.text == ""
        announcer.tell(GOOD)
        assert "wal-receiver is good again" in caplog.text


# --- Prefect --------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    found: list[dict] = []
    fake = types.ModuleType("prefect.events")
    fake.emit_event = lambda **told: found.append(told)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prefect.events", fake)
    return found


def test_outside_of_a_flow_run_nothing_is_sent(sent: list[dict]) -> None:
    events.tell_objectives(BAD)
    assert sent == []


def test_in_a_flow_run_each_red_finding_is_an_event_of_its_own(
    sent: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "in_flow_run", lambda: True)
    events.tell_objectives(BAD)
    names = {f"lifeboat.cad.{finding.name}" for finding in BAD.red}
    red = [told for told in sent if told["event"] == "lifeboat.finding.red"]
    assert {told["resource"]["prefect.resource.id"] for told in red} == names
    [whole] = [told for told in sent if told["event"] == "lifeboat.objectives"]
    assert whole["resource"]["prefect.resource.id"] == "lifeboat.cad.objectives"
    assert whole["payload"]["red"] == [finding.name for finding in BAD.red]
    assert not whole["payload"]["good"]


def test_an_event_that_can_not_be_sent_stops_nothing(
    sent: list[dict], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def away(**told: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(events, "in_flow_run", lambda: True)
    monkeypatch.setattr(sys.modules["prefect.events"], "emit_event", away)
    events.tell_objectives(BAD)
    assert "no server" in caplog.text


# --- looks that never raise -----------------------------------------------------------------


def test_a_defect_of_ours_is_a_finding_and_no_traceback() -> None:
    def broken() -> None:
        raise KeyError("what")

    found = seen(broken)
    assert isinstance(found, Unseen)
    assert found.cause is Cause.UNREACHABLE
    assert "a defect of Lifeboat: KeyError: 'what'" in found.why


def test_from_s3_a_bucket_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="bucket"):
        WatchObjectives(source="s3")
