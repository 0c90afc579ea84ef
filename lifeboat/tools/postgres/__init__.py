"""PostgreSQL: the server over its protocol, base copies by its own tools, and a cluster's files.

`server` asks and tells a running server, `copies` makes and proves base copies, `cluster` reads and
prepares what lies in a data directory, `scratch` starts a restored one on the side to question it.
"""

from lifeboat.tools.postgres.cluster import (
    Reached,
    cluster_problems,
    collect_segments,
    end_of_wal,
    finish_recovery,
    recovered_to,
    salvage_segments,
    stage_recovery,
)
from lifeboat.tools.postgres.copies import (
    BaseBackup,
    base_backup,
    read_every_block,
    receive_wal,
    require_same_major,
    tools_version,
    verify_backup,
)
from lifeboat.tools.postgres.roles import (
    identifier,
    literal,
    password_verifier,
    require_replication,
)
from lifeboat.tools.postgres.scratch import (
    check_everything,
    end_orphan,
    scratch_server,
)
from lifeboat.tools.postgres.server import (
    Connection,
    Identity,
    Receiver,
    answers,
    check_references,
    database_bytes,
    drop_slot,
    ensure_slot,
    identify,
    now,
    query,
    read_every_row,
    receiver_of,
    row_counts,
    sequences,
    set_synchronous,
    slot_restart_lsn,
    wait_until_ready,
)

__all__ = [
    "BaseBackup",
    "Connection",
    "Identity",
    "Reached",
    "Receiver",
    "answers",
    "base_backup",
    "check_everything",
    "check_references",
    "cluster_problems",
    "collect_segments",
    "database_bytes",
    "drop_slot",
    "end_of_wal",
    "end_orphan",
    "ensure_slot",
    "finish_recovery",
    "identifier",
    "identify",
    "literal",
    "password_verifier",
    "now",
    "query",
    "read_every_block",
    "read_every_row",
    "receive_wal",
    "receiver_of",
    "recovered_to",
    "require_replication",
    "require_same_major",
    "row_counts",
    "salvage_segments",
    "scratch_server",
    "sequences",
    "set_synchronous",
    "slot_restart_lsn",
    "stage_recovery",
    "tools_version",
    "verify_backup",
    "wait_until_ready",
]
