from __future__ import annotations

from lifeboat.core.forms import ProvisionServer
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.timeline import RunRecord
from tasks import approval, provision, recovery
from tasks.orchestration import procedure


@procedure("provision-server")
def provision_server(request: ProvisionServer) -> RunRecord | RecoveryPlan:
    """Scenario 2 without a machine: one is made in EC2, and recovers the platform by itself.

    Before you start: the bucket, its key and the vault's password; a key for EC2; `provision.ec2`
    in the lifeboat.yaml that the bucket holds.

    1. Read from the bucket what machine the platform needs.
    2. Show the plan and wait for approval.
    3. Make a security group and an instance, once for each incident. The instance installs Docker
       and Lifeboat, and runs recover-server.
    4. Wait for its report in the bucket.

    What it changes: EC2 gains a group and an instance, which is paid for. The rest is what
    recover-server says.
    If it fails: the instance is kept, or ended if that was asked for; its id and the command that
    ends it are said. Run it again with the same incident: there will not be a second one.
    Evidence: the record of recover-server, in the new host's vault and in the bucket.
    """
    with provision.provisioning(request) as run:
        wanted = provision.read_wanted(request)
        plan = provision.plan(wanted, request)
        if request.dry_run:
            return recovery.end_dry_run(run, plan)
        approval.approve(plan, request, wanted.settings)

        machine = provision.make_machine(wanted)
        provision.wait_until_recovered(wanted, machine, request)
    return run.record
