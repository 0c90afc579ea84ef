"""The platform's services as a whole: look at them, stop them, start them.

`Stack` is the protocol; the flows cannot tell its implementations apart. `ComposeStack` is Docker
Compose, `ProcessStack` plain processes under supervisor.
"""

from lifeboat.tools.stacks.compose import ComposeStack
from lifeboat.tools.stacks.joint import JointStack
from lifeboat.tools.stacks.protocol import ServiceState, ServiceStatus, Stack
from lifeboat.tools.stacks.supervisor import ProcessStack

__all__ = ["ComposeStack", "JointStack", "ProcessStack", "ServiceState", "ServiceStatus", "Stack"]
