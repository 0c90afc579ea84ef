"""The disaster recovery plan that is written for a platform: in step with flows and commands."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from lifeboat.cli import app
from lifeboat.core import disaster_plan
from lifeboat.core.checks import CHECK_NAMES
from lifeboat.core.drill import DrillOnRecord, ScenarioOnRecord
from lifeboat.core.followups import ACTIONS
from lifeboat.core.marks import Kind
from lifeboat.core.review_kinds import ABOUT
from tasks import clock, marks, places
from tasks.people import disaster_plan as task
from tasks.prefect_server import deployment

pytestmark = [pytest.mark.system]

# Typer brings a click of its own, and shows of its errors only this one.
UsageError = typer.BadParameter.__bases__[0]
ROOT = Path(__file__).resolve().parents[2]
CARD = """\
card:
  contacts:
    - {role: DevOps Lead (primary), name: Ann, phone: +1-555-0101}
"""


@pytest.fixture
def text(host) -> str:
    host.write_yaml(sections=CARD)
    return host.run("plan").stdout


def commands_in(text: str) -> set[str]:
    """Every command of ours that the plan tells to type: in a block, or between backticks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    # Those before them are the shell's own, which make ours be found.
    typed = [line for line in lines if not line.startswith(("cd ", ". ", "set -a;"))]
    inline = re.findall(r"`(lifeboat [^`]+)`", text)
    return {line.partition("   #")[0].strip() for line in (*typed, *inline)}


def parse(words: list[str]) -> None:
    """As the command line does it, without doing anything. Raises UsageError if it is wrong."""
    command = get_command(app)
    context = command.make_context("lifeboat", list(words), resilient_parsing=False)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            assert command.invoke_without_command, words
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, words
        command, context = found, found.make_context(name, list(rest), parent=context)


def test_every_command_that_it_names_parses(text: str) -> None:
    found = commands_in(text)
    assert len(found) > 15
    for line in found:
        # What a person fills in, in capitals, is a word like any other.
        words = shlex.split(line)[1:]
        if words[:2] == ["review", "sign-off"]:
            words += ["--by", "Ann"]
        if words[:2] == ["followups", "add"]:
            words += ["What", "--by", "Ann"]
        parse(words)


@pytest.mark.parametrize("line", ["recover nothing", "recover files --dat 2026-01-01", "nosuch"])
def test_a_command_that_is_wrong_would_be_found(line: str) -> None:
    with pytest.raises(UsageError):
        parse(line.split())


def test_every_recovery_is_in_it_and_every_deployment_exists(host, text: str) -> None:
    flows = {path.stem.replace("_", "-") for path in (ROOT / "flows").glob("*.py")}
    recoveries = {f for f in flows if f.split("-")[0] in ("recover", "provision")}
    assert recoveries == set(disaster_plan.TITLES) == set(disaster_plan.SYMPTOMS)
    declared = deployment.read_declaration(host.settings).deployments
    named = set(re.findall(r"cad-test\.[a-z-]+", text))
    assert named == {d.name for d in declared if d.schedules} | {
        f"cad-test.{flow}" for flow in recoveries - {"recover-orchestrator"}
    }
    for schedule in (s for d in declared for s in d.schedules):
        assert schedule.cron in text


def test_each_recovery_has_its_steps_and_what_to_do_if_it_fails() -> None:
    for flow in disaster_plan.TITLES:
        steps, fails = task._of_docstring(ROOT / "flows" / f"{flow.replace('-', '_')}.py")
        assert len(steps) >= 3, flow
        assert [step.split(".")[0] for step in steps] == [str(n + 1) for n in range(len(steps))]
        assert fails, flow


def test_it_has_the_whole_of_the_plan_that_it_replaces(text: str) -> None:
    for words in (
        "at most 4 h down",
        "at most 60 min of data lost",
        "30 days on this host and 90 days in S3",
        "DevOps Lead (primary) Ann | +1-555-0101",
        "No drill of it has passed yet.",
        *CHECK_NAMES,
        *(action.title for action in ACTIONS),
        *(about.title for about in ABOUT.values()),
    ):
        assert words in text
    assert text.count("- [ ] ") == len(CHECK_NAMES) + len(ACTIONS)


def test_measured_times_stand_in_it_with_their_basis(host) -> None:
    drill = DrillOnRecord(
        id="drill-20260601T000000Z-aaaa",
        drilled="cad-staging",
        stack="process",
        ended_at=datetime(2026, 6, 1, tzinfo=timezone.utc),
        passed=True,
        scenarios=(
            ScenarioOnRecord(
                name="files",
                passed=True,
                rto_seconds=17.2,
                rpo_seconds=0,
                start_seconds=1,
                verify_seconds=2,
            ),
        ),
    )
    marks.put(host.settings, Kind.DRILLS, drill.id, drill)
    told = "Drill of 2026-06-01: 17 s from the fault to the last check, on cad-staging"
    assert host.run("plan").stdout.count(told) == 1


def test_a_secret_is_refused_and_a_pdf_is_made(host, tmp_path: Path) -> None:
    pdf = tmp_path / "plan.pdf"
    assert host.run("plan", "--pdf", str(pdf), "--paper", "letter").stdout.strip() == str(pdf)
    assert pdf.read_bytes().startswith(b"%PDF")
    host.write_yaml(sections=CARD.replace("Ann", f"vault-{host.canary}"[:40]))
    refused = host.run("plan", ok=3)
    assert "it would show LIFEBOAT_VAULT_PASSWORD" in refused.stderr
    assert refused.stdout == ""


def test_a_backup_of_the_configuration_keeps_it_in_both_tiers_and_renews_it(host) -> None:
    host.write_yaml(sections=CARD)
    host.run("backup", "config")
    bucket, here = places.bucket(host.settings), host.root / "backups/records/plan"
    first = bucket.get("records/plan/plan.md")
    assert first == (here / "plan.md").read_bytes()
    assert bucket.get("records/plan/plan.pdf").startswith(b"%PDF")
    assert b"+1-555-0101" in first
    assert bucket.exists("records/began/cad-test.json")
    host.run("backup", "config")
    assert bucket.get("records/plan/plan.md") == first, "nothing has changed"
    host.write_yaml(sections=CARD.replace("0101", "0199"))
    host.run("backup", "config")
    assert b"+1-555-0199" in bucket.get("records/plan/plan.md")
    before = (here / "plan.md").read_bytes()
    with clock.set_to(datetime.now(timezone.utc) + timedelta(days=1, hours=1)):
        task.publish(host.settings)
    assert (here / "plan.md").read_bytes() != before, "once a day what was measured is renewed"


def test_a_bucket_that_is_away_costs_no_backup_its_success_and_is_tried_again(host) -> None:
    bucket = places.bucket(host.settings)
    host.write_yaml(endpoint="http://127.0.0.1:9", sections=CARD)
    task.publish(host.settings)
    assert not bucket.exists("records/plan/plan.md")
    host.write_yaml(sections=CARD)
    task.publish(host.settings)
    assert b"+1-555-0101" in bucket.get("records/plan/plan.md")
