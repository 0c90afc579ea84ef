"""A server that is away is one sentence in the worker's log, and other troubles stay whole."""

from __future__ import annotations

import logging

import httpx
import pytest

from tasks.prefect_server.absence import Absence


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture):
    absence = Absence()
    caplog.handler.addFilter(absence)
    yield caplog
    caplog.handler.removeFilter(absence)


def tell(name: str, error: Exception) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger(name).exception("The observer failed.")


def test_it_is_told_once_and_without_a_traceback(said) -> None:
    for _ in range(3):
        tell("prefect._internal.observers", ConnectionRefusedError(111, "Connect call failed"))
        tell("prefect.worker", httpx.ConnectError("All connection attempts failed"))
    [record] = said.records
    assert "server does not answer ([Errno 111] Connect call failed)" in record.getMessage()
    assert record.exc_info is None
    assert "lifeboat recover" in record.getMessage()


@pytest.mark.parametrize(
    ("name", "error"),
    [("prefect.worker", ValueError("a defect")), ("lifeboat", ConnectionError("S3 is away"))],
)
def test_other_troubles_keep_their_traceback(said, name: str, error: Exception) -> None:
    tell(name, error)
    [record] = said.records
    assert record.getMessage() == "The observer failed."
    assert record.exc_info


def test_what_came_of_an_absence_is_one_too(said) -> None:
    try:
        raise RuntimeError("gave up") from ConnectionResetError("reset")
    except RuntimeError:
        logging.getLogger("prefect.events").exception("Events are not sent.")
    assert "does not answer" in said.text and "Traceback" not in said.text
