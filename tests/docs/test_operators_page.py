"""docs/operators.md: each form with its fields, each schedule and each end, as the code has them.

Run as a program it prints the tables of the forms as the page is to hold them.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lifeboat.core import errors
from lifeboat.core.deployment import DeploymentDeclaration
from tasks.prefect_server import deployment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operators.md").read_text()
SETTINGS = SimpleNamespace(platform="PLATFORM", file=Path("/srv/lifeboat.yaml"), orchestrator=True)
DECLARED = deployment.read_declaration(SETTINGS).deployments  # type: ignore[arg-type]
FLOWS = deployment.load_flows(deployment.read_declaration(SETTINGS))  # type: ignore[arg-type]
BY_HAND = [declared for declared in DECLARED if not declared.schedules or "drill" in declared.tags]
BY_ITSELF = [declared for declared in DECLARED if declared.schedules]


def form_of(declared: DeploymentDeclaration) -> dict[str, Any]:
    schema = FLOWS[declared.entrypoint].parameters.model_dump()
    (model,) = (m for m in schema["definitions"].values() if m["type"] == "object")
    definitions = schema["definitions"]
    return {
        name: _resolved(told, definitions)
        for name, told in sorted(model["properties"].items(), key=lambda item: item[1]["position"])
    }


def _resolved(told: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    name = told.get("$ref", "").rpartition("/")[2]
    return {**definitions[name], **told} if name else told


def table_of(form: dict[str, Any]) -> str:
    rows = ["| field | what it may be | what it does |", "|---|---|---|"]
    rows += [f"| {_title(n, f)} | {_allowed(f)} | {f['description']} |" for n, f in form.items()]
    return "\n".join(rows)


def _title(name: str, field: dict[str, Any]) -> str:
    return field.get("title") or name


def _allowed(field: dict[str, Any]) -> str:
    kind = field.get("type", "string")
    if field.get("enum"):
        said = ", ".join(f"`{choice}`" for choice in field["enum"])
    elif kind in ("integer", "number"):
        low = field.get("minimum", field.get("exclusiveMinimum"))
        high = field.get("maximum")
        more = "more than " if "exclusiveMinimum" in field else ""
        said = f"{more}{low:g}" + (f" to {high:g}" if high is not None else " or more")
    else:
        said = {"boolean": "yes or no", "array": "several"}.get(kind, "text")
    if "default" not in field:
        return f"{said}; needed"
    default = field["default"]
    if kind == "boolean":
        return f"{said}; {'yes' if default else 'no'}"
    if kind == "array" or default == "":
        return said if not default else f"{said}; all"
    return f"{said}; `{default}`"


@pytest.mark.parametrize("declared", BY_HAND, ids=lambda declared: declared.flow)
def test_each_form_is_there_with_all_its_fields(declared: DeploymentDeclaration) -> None:
    heading = f"### `{declared.name.rpartition('.')[2]}`"
    assert heading in PAGE, f"docs/operators.md has no {heading}"
    section = PAGE.split(heading, 1)[1].split("\n##", 1)[0]
    table = table_of(form_of(declared))
    assert table in section, f"in docs/operators.md the fields of {heading} should be:\n\n{table}\n"


def test_no_form_is_described_that_is_not_there() -> None:
    told = set(re.findall(r"^### `([a-z-]+)`", PAGE, re.MULTILINE))
    assert told == {declared.name.rpartition(".")[2] for declared in BY_HAND}


def test_each_schedule_is_told() -> None:
    for declared in BY_ITSELF:
        crons = ", ".join(f"`{schedule.cron}`" for schedule in declared.schedules)
        row = f"| {declared.name.rpartition('.')[2]} | {crons} |"
        assert row in PAGE, f"docs/operators.md lacks {row}"


def test_each_way_to_end_is_told() -> None:
    ours = {"DryRun", "NotGood", errors.Rejected.__name__, errors.NobodyApproved.__name__}
    ours |= {kind.__name__ for kind in errors.AgreementVoid.__subclasses__()}
    told = set(re.findall(r"^\| \*\*(\w+)\*\* \|", PAGE, re.MULTILINE))
    assert told >= ours | {"Completed", "Failed", "Crashed", "Paused", "Late"}
    assert told - ours <= {
        "Completed",
        "Failed",
        "Crashed",
        "Paused",
        "Late",
        "Running",
        "Cancelled",
        "Pending",
        "Scheduled",
    }


if __name__ == "__main__":
    for one in BY_HAND:
        print(f"### `{one.name.rpartition('.')[2]}`\n{one.description.strip()}\n")
        print(f"{table_of(form_of(one))}\n")
