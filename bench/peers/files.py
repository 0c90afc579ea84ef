"""Rivals for files and models: each backs two directories up, and puts them back where they were.

`$ROUND` names a place of its own for each round, so that a first backup is one each time.
"""

from __future__ import annotations

from typing import Protocol

from bench import shell

_BOTH = '"$SERVER/data/files" "$SERVER/data/models"'


class FileRival(Protocol):
    """One way to protect directories."""

    name: str
    note: str  # what it lacks, or does besides; empty: nothing to tell

    def version(self) -> str | None: ...

    def prepare(self) -> str:
        """What makes its empty place for this round; it is not timed."""

    def back_up(self) -> str: ...

    def restore(self, *, from_s3: bool) -> str | None:
        """What puts everything back over what there is; None if it has no copy there."""


class ResticByHand:
    name = "restic by hand"
    note = ""
    _here, _there = '-r "$PEERS/restic-$ROUND"', '-r "s3:$S3/$BUCKET/restic-$ROUND"'

    def version(self) -> str | None:
        from lifeboat.settings import find_restic

        return shell.version(find_restic(), "version")

    def prepare(self) -> str:
        return "\n".join(f'"$RESTIC" {where} init -q' for where in (self._here, self._there))

    def back_up(self) -> str:
        return "\n".join(
            f'"$RESTIC" {where} backup -q {_BOTH}' for where in (self._here, self._there)
        )

    def restore(self, *, from_s3: bool) -> str:
        where = self._there if from_s3 else self._here
        return (
            f'"$RESTIC" {where} restore -q "latest:$SERVER/data" '
            '--target "$SERVER/data" --overwrite always'
        )


class Borg:
    name = "borg"
    note = "it knows no S3: its repository is copied there by rclone."
    _here, _there = "$PEERS/borg-$ROUND", "peers:$BUCKET/borg-$ROUND"

    def version(self) -> str | None:
        return shell.version("rclone", "version") and shell.version("borg", "--version")

    def prepare(self) -> str:
        return f'borg init -e repokey-blake2 "{self._here}"'

    def back_up(self) -> str:
        return (
            f'borg create -C zstd "{self._here}::$(date +%s.%N)" {_BOTH}\n'
            f'rclone sync --fast-list --transfers 8 "{self._here}" "{self._there}"'
        )

    def restore(self, *, from_s3: bool) -> str:
        place, fetch = self._here, ""
        if from_s3:
            place = "$PEERS/borg-fetched"
            fetch = f'rm -rf "{place}"\nrclone copy --transfers 8 "{self._there}" "{place}"\n'
        return f'{fetch}cd /\nborg extract "{place}::$(borg list --short --last 1 "{place}")"'


class Tar:
    """The plan's way: one archive, compressed, and a copy of it in S3. Every one is a full one."""

    note = "every backup is a full one; it is not encrypted."

    def __init__(self, name: str, compress: str) -> None:
        self.name = name
        self._compress = compress

    def version(self) -> str | None:
        return (
            shell.version("rclone", "version")
            and shell.version(self._compress, "--version")
            and shell.version("tar", "--version")
        )

    @property
    def _archive(self) -> str:
        return f"{self._compress}-$ROUND.tar.gz"

    def prepare(self) -> str:
        return f'rm -f "$PEERS/{self._archive}"'

    def back_up(self) -> str:
        return (
            f'tar -C "$SERVER/data" -cf - files models | {self._compress} >"$PEERS/{self._archive}"'
            f'\nrclone copyto "$PEERS/{self._archive}" "peers:$BUCKET/{self._archive}"'
        )

    def restore(self, *, from_s3: bool) -> str:
        unpack = f'{self._compress} -dc | tar -C "$SERVER/data" -xf -'
        if from_s3:
            return f'rclone cat "peers:$BUCKET/{self._archive}" | {unpack}'
        return f'<"$PEERS/{self._archive}" {unpack}'


class RcloneSync:
    name = "rclone sync"
    note = (
        "it keeps one state in S3 only, no older one, and nothing is encrypted: damage that it "
        "has copied is final."
    )

    def version(self) -> str | None:
        return shell.version("rclone", "version")

    def prepare(self) -> str:
        return ":"

    def back_up(self) -> str:
        return "\n".join(
            "rclone sync --fast-list --transfers 8 --checkers 16 "
            f'"$SERVER/data/{what}" "peers:$BUCKET/rclone-$ROUND/{what}"'
            for what in ("files", "models")
        )

    def restore(self, *, from_s3: bool) -> str | None:
        if not from_s3:
            return None
        # By content: what was damaged keeps size and time.
        return "\n".join(
            "rclone copy --fast-list --transfers 8 --checkers 16 --checksum "
            f'"peers:$BUCKET/rclone-$ROUND/{what}" "$SERVER/data/{what}"'
            for what in ("files", "models")
        )


def file_rivals() -> tuple[FileRival, ...]:
    return (
        ResticByHand(),
        Borg(),
        Tar("tar + gzip + S3 (the plan)", "gzip"),
        Tar("tar + pigz + S3", "pigz"),
        RcloneSync(),
    )
