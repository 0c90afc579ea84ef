"""The forms that an operator fills in, as the UI gets them and as its server checks them."""

from __future__ import annotations

import importlib
import inspect

import pytest
from prefect.utilities.schema_tools import ValidationError, validate
from pydantic import ValidationError as Invalid

from lifeboat.core import forms
from lifeboat.core.ladder import Rung

FLOWS = (
    "recover_database",
    "recover_server",
    "provision_server",
    "recover_files",
    "recover_models",
    "recover_bucket",
    "verify_recovery",
    "drill",
)


def flow_of(name: str):
    return getattr(importlib.import_module(f"flows.{name}"), name)


def form_of(name: str) -> dict:
    """The form as it lies on the server: of one parameter, without boxes inside of it."""
    schema = flow_of(name).parameters.model_dump()
    (model,) = (m for m in schema["definitions"].values() if m["type"] == "object")
    return model


@pytest.mark.parametrize("name", FLOWS)
def test_each_field_has_a_sentence_a_place_and_a_plain_kind(name: str) -> None:
    form = form_of(name)
    for field, told in form["properties"].items():
        assert told["description"].endswith(".") or "e.g." in told["description"], field
        assert len(told["description"]) > 15, field
        assert "default" in told or field in form["required"], field
        assert not {"anyOf", "oneOf", "allOf", "$ref"} & told.keys(), f"{field} is a box or a tab"
        assert told.get("format") != "date-time", "its picker has five-minute steps"
    places = [told["position"] for told in form["properties"].values()]
    assert places == list(range(len(places)))
    assert form["additionalProperties"] is False


def test_the_form_of_the_database_asks_in_the_order_of_the_night() -> None:
    assert list(form_of("recover_database")["properties"]) == [
        *("source", "to_time", "rungs"),
        *("because", "dry_run", "approval", "approval_seconds", "config"),
    ]
    assert form_of("recover_database")["properties"]["rungs"]["default"] == list(Rung)


@pytest.mark.parametrize(
    ("flow", "field", "value"),
    [
        ("recover_database", "to_time", "yesterday"),
        ("recover_database", "to_time", "2026-01-31"),
        ("recover_database", "source", "tape"),
        ("recover_database", "rungs", []),
        ("recover_database", "rungs", ["prayer"]),
        ("recover_database", "approval", "yes"),
        ("recover_database", "approval_seconds", 3),
        ("recover_database", "to_tme", ""),
        ("recover_files", "date", "31.1.2026"),
        ("recover_models", "point", "newest"),
        ("recover_server", "bucket", ""),
        ("recover_bucket", "as_of", "3 a.m."),
        ("drill", "scenarios", ["meteor"]),
        ("drill", "scale", 0),
    ],
)
def test_the_server_refuses_what_does_not_fit(flow: str, field: str, value: object) -> None:
    schema = flow_of(flow).parameters.model_dump()
    known = {"bucket": "vault", "into": "/srv/p"} if flow.endswith("_server") else {}
    validate({"request": known}, schema, raise_on_error=True)
    with pytest.raises(ValidationError):
        validate({"request": {**known, field: value}}, schema, raise_on_error=True)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (forms.RecoverDatabase, {"to_time": "2026-02-31T00:00:00Z"}),
        (forms.RecoverFiles, {"date": "2026-02-31"}),
        (forms.RecoverFiles, {"date": "2026-02-01", "point": "files-20260131T031500Z"}),
    ],
)
def test_what_no_schema_can_tell_is_refused_by_the_flow(model, values) -> None:
    with pytest.raises(Invalid):
        model(**values)


@pytest.mark.parametrize("name", ["database", "files", "models", "server", "bucket"])
def test_the_command_line_asks_for_all_that_the_form_asks_for(name: str) -> None:
    from lifeboat.cli import recoveries

    command = getattr(recoveries, name)
    options = {"from" if o == "source" else o for o in inspect.signature(command).parameters}
    fields = {"from" if f == "source" else f for f in form_of(f"recover_{name}")["properties"]}
    # `--approve` is the approval and the platform's name in one; a terminal waits for its operator.
    assert fields - options - {"approval", "approval_seconds", "platform"} == set()
