"""The platform's services as a whole: look at them, stop them, start them.

`Stack` is the protocol; the flows cannot tell its implementations apart. `ProcessStack` speaks to
supervisor.
"""

from lifeboat.tools.stacks.protocol import ServiceState, ServiceStatus, Stack
from lifeboat.tools.stacks.supervisor import ProcessStack

__all__ = ["ProcessStack", "ServiceState", "ServiceStatus", "Stack"]
