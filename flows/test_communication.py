from __future__ import annotations

from lifeboat.core.forms import CommunicationTest
from lifeboat.core.review_evidence import MessageTest
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import contact_test


@procedure("test-communication")
def test_communication(request: CommunicationTest = CommunicationTest()) -> MessageTest:
    """Testing and maintenance, monthly: try every way to people, and hear from each that it works.

    1. Send a message, marked as a test, by every channel of every person of lifeboat.yaml.
    2. Each says by the same form, or `lifeboat incident received NAME`, that it came.

    What it changes: one record in `records/communication-tests/`, in both tiers.
    If it fails: the channels that took nothing are named; mend them and run it again.
    Evidence: the record. The review `communication-test` shows who has not answered.
    """
    settings = load_settings(request.config or None)
    if request.received:
        return contact_test.received(settings, request.received)
    return contact_test.send(settings, customers_too=request.customers_too)
