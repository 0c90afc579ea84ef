"""Looking into a repository: its snapshots, and the files that each of them holds."""

from __future__ import annotations

import contextvars
import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, TypeVar

from lifeboat.core.errors import PermanentError
from lifeboat.tools.restic.answers import FileEntry, FoundFile, Snapshot, moment, snapshot_of
from lifeboat.tools.restic.calling import Calling
from lifeboat.tools.restic.errors import NotADirectory

log = logging.getLogger("lifeboat.restic")

_Picked = TypeVar("_Picked")

_UNREADABLE = re.compile(
    r"Unable to load tree [0-9a-f]{64}\n \.\.\. which belongs to snapshot ([0-9a-f]{64})\n"
)

_listed: contextvars.ContextVar[dict[str, tuple[Snapshot, ...]] | None] = contextvars.ContextVar(
    "listed", default=None
)


@contextmanager
def listing_once() -> Iterator[None]:
    """Within the block the snapshots of each repository are listed once, for looks from many sides.

    It also holds for threads to which the context is copied.
    """
    token = _listed.set({})
    try:
        yield
    finally:
        _listed.reset(token)


class Reading(Calling):
    """Looks that change nothing and take no lock."""

    def snapshots(self, *, tags: Mapping[str, str] | None = None) -> tuple[Snapshot, ...]:
        """All snapshots that have all of `tags`, oldest first."""
        known = _listed.get()
        found = known.get(self.location) if known is not None else None
        if found is None:
            told = self._read(["snapshots"], doing=f"Listing the snapshots of {self.location}")
            found = tuple(snapshot_of(item) for item in json.loads(told.stdout) or ())
            if known is not None:
                known[self.location] = found
        wanted = (tags or {}).items()
        return tuple(
            sorted(
                (snapshot for snapshot in found if wanted <= snapshot.tags.items()),
                key=lambda snapshot: snapshot.taken_at,
            )
        )

    def dump(self, snapshot_id: str, path: str) -> bytes:
        """The content of one file of a snapshot."""
        doing = f"Reading {path} of snapshot {snapshot_id[:8]}"
        return self._read(["dump", "--", snapshot_id, path], doing=doing).stdout

    def list_files(self, snapshot_id: str, subfolder: str) -> tuple[FileEntry, ...]:
        """Every file below a directory of a snapshot, or that one file."""

        def file(node: dict[str, Any]) -> FileEntry | None:
            if node["type"] != "file":
                return None
            return FileEntry(node["path"], node.get("size", 0), moment(node["mtime"]))

        return tuple(self._nodes(snapshot_id, subfolder, file))

    def find(self, names: Collection[str]) -> tuple[FoundFile, ...]:
        """Every file of every snapshot that has one of these names, in whatever directory.

        What of a snapshot can't be read is told and passed over.
        """
        patterns = [re.sub(r"([*?\[\\])", r"\\\1", name) for name in names]
        doing = f"Looking for {len(names)} files in all snapshots of {self.location}"
        told = self._read(["find", "--", *patterns], doing=doing).stdout.decode()
        # restic says that in the middle of its JSON, and ends well.
        for snapshot in sorted(set(_UNREADABLE.findall(told))):
            log.warning("%s: a part of snapshot %s can't be read.", doing, snapshot[:8])
        try:
            found = json.loads(_UNREADABLE.sub("", told)) or ()
        except ValueError as error:
            raise PermanentError(f"{doing}: restic's answer can't be read.") from error
        return tuple(
            FoundFile(
                snapshot["snapshot"],
                match["path"],
                match.get("size", 0),
                moment(match["mtime"]),
                moment(match["ctime"]),
                match.get("inode", 0),
            )
            for snapshot in found
            for match in snapshot["matches"]
            if match["type"] == "file"
        )

    def _nodes(
        self, snapshot_id: str, subfolder: str, pick: Callable[[dict[str, Any]], _Picked | None]
    ) -> list[_Picked]:
        """What is picked of files, directories and links below a directory, `path` relative to it.

        A node is let go once something was picked of it: there may be millions.
        """
        doing = f"Listing {subfolder} of snapshot {snapshot_id[:8]}"
        picked: list[_Picked] = []

        def take(line: str) -> None:
            node = json.loads(line)
            if node.get("message_type", node.get("struct_type")) == "node":
                node["path"] = node["path"].removeprefix("/")
                keep(node)

        def keep(node: dict[str, Any]) -> None:
            if (found := pick(node)) is not None:
                picked.append(found)

        try:
            self._read(["ls", "--", f"{snapshot_id}:{subfolder}"], doing=doing, on_line=take)
        except NotADirectory:
            path = PurePosixPath(subfolder)

            def keep_file(line: str) -> None:
                node = json.loads(line)
                if node.get("path") == subfolder:
                    keep({**node, "path": path.name})

            self._read(["ls", "--", snapshot_id, subfolder], doing=doing, on_line=keep_file)
        return picked
