"""PostgreSQL: the server over its protocol, base copies by its own tools, and a cluster's files.

`server` asks and tells a running server, `replication` gets its WAL out as it is written, `copies`
makes and proves base copies, `cluster` reads and prepares what lies in a data directory, `scratch`
starts a restored one on the side to question it.
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
    require_same_major,
    tools_version,
    verify_backup,
)
from lifeboat.tools.postgres.replication import (
    Flushed,
    Receiver,
    Slot,
    drop_slot,
    ensure_slot,
    flushed_to,
    free_slot,
    receive_wal,
    receiver_of,
    set_synchronous,
    slot_cap_bytes,
    slot_of,
    slot_restart_lsn,
)
from lifeboat.tools.postgres.scratch import (
    check_everything,
    end_orphan,
    scratch_server,
)
from lifeboat.tools.postgres.server import (
    Connection,
    Identity,
    answers,
    check_references,
    database_bytes,
    identify,
    now,
    query,
    read_every_row,
    row_counts,
    sequences,
    wait_until_ready,
)

__all__ = [
    "BaseBackup",
    "Connection",
    "Flushed",
    "Identity",
    "Reached",
    "Receiver",
    "Slot",
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
    "flushed_to",
    "free_slot",
    "identify",
    "now",
    "query",
    "read_every_block",
    "read_every_row",
    "receive_wal",
    "receiver_of",
    "recovered_to",
    "require_same_major",
    "row_counts",
    "salvage_segments",
    "scratch_server",
    "sequences",
    "set_synchronous",
    "slot_cap_bytes",
    "slot_of",
    "slot_restart_lsn",
    "stage_recovery",
    "tools_version",
    "verify_backup",
    "wait_until_ready",
]
