"""restic: the vault's repositories, and every file of theirs that comes back.

Manual: https://restic.readthedocs.io/en/v0.18.0/ ("Scripting" for the JSON, "Exit codes"). What is
said here of restic's behaviour was tried with 0.18.0.

The password goes to restic by environment, never by argument. Opening a repository costs 0.6 s of
one core, whatever is asked of it: that is how the password is made hard to guess. A host's own key
(`keys`) saves that.
"""

from lifeboat.tools.restic.answers import (
    BackupSummary,
    Damage,
    FileEntry,
    FoundFile,
    Health,
    OnProgress,
    Progress,
    RestoreSummary,
    Snapshot,
)
from lifeboat.tools.restic.errors import NoRepository, WrongPassword
from lifeboat.tools.restic.keys import HostKey, at_any_age, is_left_by_this_host
from lifeboat.tools.restic.reading import listing_once
from lifeboat.tools.restic.repository import MINIMUM_VERSION, Repository
from lifeboat.tools.restic.restoring import Overwrite

__all__ = [
    "MINIMUM_VERSION",
    "BackupSummary",
    "Damage",
    "FileEntry",
    "FoundFile",
    "Health",
    "HostKey",
    "NoRepository",
    "OnProgress",
    "Overwrite",
    "Progress",
    "Repository",
    "RestoreSummary",
    "Snapshot",
    "WrongPassword",
    "at_any_age",
    "is_left_by_this_host",
    "listing_once",
]
