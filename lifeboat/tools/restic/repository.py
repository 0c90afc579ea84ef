"""A restic repository: made, filled, checked, and relieved of what is no longer needed."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientError,
    VerificationFailed,
)
from lifeboat.tools import process
from lifeboat.tools.restic import keys
from lifeboat.tools.restic.answers import BackupSummary, Health, OnProgress, some, tag_words
from lifeboat.tools.restic.errors import INCOMPLETE, NoRepository
from lifeboat.tools.restic.keys import HostKey
from lifeboat.tools.restic.output import SNAPSHOT, Heard, Problems
from lifeboat.tools.restic.restoring import Restoring

log = logging.getLogger("lifeboat.restic")

MINIMUM_VERSION = (0, 17)  # the first whose restore can leave alone what is already right


class Repository(Restoring):
    """One restic repository. Making the object touches nothing.

    Every method raises PreconditionError for a missing repository, bucket or snapshot and for a
    wrong password, TransientError for a lock that is not stale and for a network that fails,
    VerificationFailed for damage, and CommandFailed or another PermanentError otherwise.

    A storage that fails is tried again for `patience_seconds`, where restic itself would go on for
    15 minutes, even when there is no such bucket.
    """

    # --- the repository itself --------------------------------------------------------------

    def version(self) -> str:
        """The program's version, e.g. `0.18.0`. Raise PreconditionError if it is too old."""
        told = process.run([self.program, "version"], doing="Asking restic for its version")
        found = re.search(r"restic (\d+)\.(\d+)\S*", told.stdout.decode())
        if not found or (int(found[1]), int(found[2])) < MINIMUM_VERSION:
            raise PreconditionError(
                f"Asking restic for its version: {self.program} is "
                f"{found[0] if found else 'no restic'}.",
                hint=f"Install restic {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} or newer.",
            )
        return found[0].removeprefix("restic ")

    def exists(self) -> bool:
        """Whether there is a repository that our password opens. A wrong password raises.

        In a recovery this host's own key is as good.
        """
        doing, alone = f"Opening {self.location}", not keys.is_at_any_age()
        try:
            self._read(["cat", "config"], doing=doing, by_password=alone)
        except NoRepository:
            return False
        return True

    def initialise(self) -> None:
        """Make the repository if there is none. Safe to call again, and from two hosts at once."""
        # Asked first, because `init` would make a bucket that does not exist.
        if self.exists():
            return
        try:
            self._call(["init"], doing=f"Making {self.location}", by_password=True)
            if self.own_key:
                self.own_key.forget()  # it was to a repository that was here before
        except CommandFailed as error:
            if "already exists" not in error.stderr_tail or not self.exists():
                raise

    # --- this host's own key ----------------------------------------------------------------

    def new_host_key(self, instead_of: HostKey) -> tuple[HostKey, bytes]:
        """A key of this host, and what has to be put into the repository below `keys/` for it.

        It counts when it is found there, see `require_opened_by`, and its file was written.
        """
        doing = f"Reading the keys of {self.location}"
        told = self._read(["cat", "masterkey"], doing=doing, by_password=True)
        master = json.dumps(json.loads(told.stdout), separators=(",", ":")).encode()
        there = json.loads(self._read(["key", "list"], doing=doing, by_password=True).stdout)
        of_password = next((key["id"] for key in there if key["current"]), "")
        own = HostKey(instead_of.path, bits=keys.new_bits(), of_password=of_password)
        id, data = keys.key_file(master, own.password(self.password))
        return dataclasses.replace(own, id=id, made=(*instead_of.made, id)), data

    def require_opened_by(self, own: HostKey) -> None:
        """Raise WrongPassword if that key does not open the repository."""
        self._run(
            ["--no-lock", "cat", "config"],
            own.environment(self.password),
            doing=f"Opening {self.location} with this host's own key",
        )

    def check(self, *, read: str = "", alone: bool = False, connections: int = 0) -> Health:
        """Check the repository's structure, and all bytes of a share of its packs.

        `read` is that share as restic writes it, `3/30` or `5%`; empty: none. Backups go on
        meanwhile; but what a prune removes looks like damage, so a finding counts when it was made
        `alone`, with a lock that keeps everyone else away.

        Nothing is taken from the cache: what is proven is what lies in the store.
        """
        doing = f"Checking {self.location}"
        words = ["check", *([f"--read-data-subset={read}"] if read else [])]
        problems, heard = Problems(), Heard()
        began = time.monotonic()
        try:
            run = self._locked if alone else self._read
            run(words, doing=doing, problems=problems, on_line=heard.take)
        except TransientError:
            raise
        except (VerificationFailed, CommandFailed):
            if not problems.text:
                raise
            # Packs that no index knows: what `prune` would remove.
            unknown = heard.summary.get("suggest_prune") or heard.summary.get(
                "suggest_repair_index"
            )
            unfound = "not found in" in problems.text
            return Health(
                problems=problems.text,
                damaged_packs=tuple(p for p in problems.packs if p not in problems.missing),
                missing_packs=tuple(problems.missing),
                index_is_damaged=bool(problems.indexes) or bool(unfound and unknown),
                something_is_lost=bool(unfound and not unknown),
                seconds=time.monotonic() - began,
            )
        return Health(seconds=time.monotonic() - began)

    def harmed_by(self, packs: Collection[str]) -> frozenset[str]:
        """The snapshots that hold anything of these packs. Reads every snapshot's directories."""
        told = self._read(
            ["find", "--pack", *packs],
            doing=f"Looking which snapshots {len(packs)} packs belong to",
        )
        # With lines for people among the JSON, where a directory itself is lost.
        return frozenset(SNAPSHOT.findall(told.stdout.decode()))

    # --- backing up -------------------------------------------------------------------------

    def backup(
        self,
        paths: Collection[Path],
        *,
        tags: Mapping[str, str],
        cwd: Path | None = None,
        excludes: Collection[str] = (),
        taken_at: datetime | None = None,
        on_progress: OnProgress | None = None,
        timeout_seconds: float | None = None,
    ) -> BackupSummary:
        """Back up files and directories as one snapshot: complete, or none at all.

        A source that can't be read, or vanished as a whole, makes the snapshot incomplete: it is
        forgotten at once and PermanentError names the files. Files that come and go below a
        source are no fault.
        """
        doing = f"Backing up {', '.join(map(str, paths))} to {self.location}"
        absent = [str(path) for path in paths if not (cwd or Path()).joinpath(path).exists()]
        if absent or not paths:
            # restic itself skips a missing source with a warning and calls that a success.
            raise PreconditionError(
                f"{doing}: {some(absent)} does not exist.",
                hint="An empty place must not become a backup. If data is lost, recover it first.",
            )
        words = ["backup", f"--tag={tag_words(tags)}"]
        words += [f"--exclude={pattern}" for pattern in excludes]
        words += [f"--host={self.host}"] if self.host else []
        words += [f"--time={taken_at.astimezone(timezone.utc):%F %T}"] if taken_at else []
        words += [] if on_progress else ["--no-scan", "--quiet"]
        heard = Heard(on_progress)
        problems = Problems()
        done = self._locked(
            [*words, "--", *map(str, paths)],
            doing=doing,
            cwd=cwd,
            on_line=heard.take,
            # Without progress it says nothing, so that nothing can be told of it.
            on_look=heard.require_progress if on_progress else None,
            problems=problems,
            ok_codes=(0, INCOMPLETE),
            timeout_seconds=timeout_seconds,
        )
        if problems.stored_again:
            log.warning(
                "%s: %d files were stored again, parts of which the repository had lost",
                doing,
                problems.stored_again,
            )
        # To have stored files again is no success to restic either.
        incomplete = done.exit_code == INCOMPLETE and (problems.count or not problems.stored_again)
        if incomplete or problems.skipped:
            self._forget_incomplete(heard.summary.get("snapshot_id"), doing, problems)
        told = heard.summary
        if "snapshot_id" not in told:
            raise PermanentError(f"{doing}: restic did not say which snapshot it made.")
        return BackupSummary(
            snapshot_id=told["snapshot_id"],
            files_new=told["files_new"],
            files_changed=told["files_changed"],
            files_unmodified=told["files_unmodified"],
            total_files=told["total_files_processed"],
            total_bytes=told["total_bytes_processed"],
            added_bytes=told["data_added_packed"],
            seconds=done.seconds,
        )

    def _forget_incomplete(self, snapshot_id: str | None, doing: str, problems: Problems) -> None:
        files = [*problems.items, *problems.skipped]
        what = f"{doing}: {max(problems.count, len(files))} could not be read: {some(files)}."
        if snapshot_id:
            try:
                self.forget([snapshot_id])
            except RecoveryError as error:
                raise PermanentError(
                    f"{what} Its incomplete snapshot {snapshot_id[:8]} could not be removed.",
                    hint=f"Remove it by hand: `restic forget {snapshot_id[:8]}`. {error}",
                ) from error
        raise PermanentError(
            what,
            hint="No recovery point was made of it. Look at owner, mode and disk; "
            "what need not be kept can be excluded.",
        )

    def forget(self, snapshot_ids: Collection[str]) -> None:
        """Remove snapshots; one that is not there counts as removed. Space comes with `prune`."""
        if snapshot_ids:
            self._locked(
                ["forget", *snapshot_ids],
                doing=f"Removing {len(snapshot_ids)} snapshots from {self.location}",
                as_json=False,
            )

    def prune(self, *, timeout_seconds: float | None = None) -> None:
        """Give back the space that no snapshot needs."""
        self._locked(
            ["prune"],
            doing=f"Freeing space in {self.location}",
            as_json=False,
            timeout_seconds=timeout_seconds,
        )
