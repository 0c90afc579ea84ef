"""Two stacks as one: names go where they belong, and a failure in one does not hide the other."""

from __future__ import annotations

import pytest

from lifeboat.core.errors import PermanentError, PreconditionError, TransientError
from lifeboat.tools.stacks import JointStack, ServiceState, ServiceStatus


class Fake:
    """A stack that remembers what it was asked for."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked, self.fails = names, [], None

    def status(self):
        return tuple(ServiceStatus(name, ServiceState.RUNNING) for name in self.names)

    def logs(self, service, lines=50):
        return f"log of {service}"

    def _act(self, what, services):
        unknown = [name for name in services if name not in self.names]
        if unknown:
            raise PreconditionError(f"no service {', '.join(unknown)}.")
        self.asked += [(what, name) for name in services]
        if self.fails:
            raise self.fails

    def strangers_at(self, path):
        return ()

    def start(self, services):
        self._act("start", services)

    def stop(self, services):
        self._act("stop", services)

    def up(self, services=None):
        self._act("up", self.names if services is None else services)

    def down(self):
        self._act("down", self.names)


@pytest.fixture
def platform() -> Fake:
    return Fake("postgres", "backend")


@pytest.fixture
def beside() -> Fake:
    return Fake("wal-receiver", "keeper", "something-else")


@pytest.fixture
def joint(platform: Fake, beside: Fake) -> JointStack:
    return JointStack(platform, beside, beside_names=("wal-receiver", "keeper"))


def test_only_the_named_services_of_the_other_stack_are_ours(joint: JointStack) -> None:
    names = [status.name for status in joint.status()]
    assert names == ["postgres", "backend", "wal-receiver", "keeper"]
    assert joint.logs("keeper") == "log of keeper"


def test_names_go_where_they_belong(joint: JointStack, platform: Fake, beside: Fake) -> None:
    joint.stop(["backend", "keeper", "postgres"])
    joint.start(["wal-receiver"])
    joint.start(["postgres"])
    assert platform.asked == [("stop", "backend"), ("stop", "postgres"), ("start", "postgres")]
    # What manages them may be down, so it is brought up with them.
    assert beside.asked == [("stop", "keeper"), ("up", "wal-receiver")]


def test_all_are_tried_and_the_failure_is_told(
    joint: JointStack, platform: Fake, beside: Fake
) -> None:
    platform.fails = PermanentError("backend: no.")
    with pytest.raises(PermanentError, match="backend: no"):
        joint.stop(["backend", "keeper"])
    assert beside.asked == [("stop", "keeper")]


def test_an_engine_that_is_gone_is_worth_another_try(joint: JointStack, platform: Fake) -> None:
    platform.fails = TransientError("the engine restarts.")
    with pytest.raises(TransientError):
        joint.stop(["backend", "keeper"])


def test_an_unknown_name_touches_nothing(joint: JointStack, platform: Fake, beside: Fake) -> None:
    with pytest.raises(PreconditionError, match="no service nonsense"):
        joint.stop(["backend", "keeper", "nonsense"])
    assert platform.asked == beside.asked == []


def test_down_ends_both(joint: JointStack, platform: Fake, beside: Fake) -> None:
    joint.down()
    assert platform.asked and beside.asked
