"""The database's restore step at two sizes: a rename takes the same time for both.

Run it as `python -m bench.restore_by_rename --megabytes 200 2000`.

For each size: make a staging platform, back its database up, destroy its data directory, recover.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lifeboat.core.forms import RecoverDatabase
from lifeboat.core.requests import Backup
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import give_secrets
from staging import faults
from staging.site import Site
from tasks import orchestration


def measure(root: Path, megabytes: int) -> tuple[RunRecord, float]:
    """Give the record of one recovery and the size of the data directory in MB."""
    from flows.backup_config import backup_config
    from flows.backup_database import backup_database
    from flows.backup_files import backup_files
    from flows.backup_models import backup_models
    from flows.recover_database import recover_database

    site = Site(root / f"{megabytes}-mb")
    site.create(scale=0.1, database_bytes=megabytes << 20)
    try:
        give_secrets(site.environment())
        site.start()
        site.stack.start(["wal-receiver"])
        request = Backup(config=str(site.settings_path))
        for backup in (backup_config, backup_files, backup_models, backup_database):
            facts = backup(request)
        assert facts.directories
        size = facts.directories["base"].bytes / 1e6
        faults.break_site(site, "destroy-data-directory")
        known = {"config": str(site.settings_path), "approval": "preapproved"}
        return recover_database(RecoverDatabase(**known)), size
    finally:
        site.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.restore_by_rename", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 2000])
    arguments = parser.parse_args()
    orchestration.run_alone()
    table = Table("MB", *("verify copy s", "restore step s", "of it rename s", "replay s", "all s"))
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-", dir=".lifeboat") as directory:
        for megabytes in arguments.megabytes:
            record, size = measure(Path(directory), megabytes)
            seconds = {s.name: s.seconds for s in record.steps}
            table.add_row(
                f"{size:.0f}",
                f"{seconds['bring-base']:.2f}",
                f"{seconds['move-into-place']:.4f}",
                f"{record.facts['rename_seconds']:.4f}",
                f"{seconds['replay']:.2f}",
                f"{record.seconds:.1f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
