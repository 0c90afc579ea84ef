"""What restic's exit codes and words mean, as one of our errors with what to do next."""

from __future__ import annotations

import re
import signal

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientCommandFailed,
    TransientError,
    VerificationFailed,
)


class NoRepository(PreconditionError):
    """There is no repository."""


class WrongPassword(PreconditionError):
    """None of the repository's key files is opened by the password."""


class DamagedKey(VerificationFailed):
    """One of the repository's key files is damaged, and restic tries none after it."""


class NotADirectory(PreconditionError):
    """A path inside a snapshot is a file."""


class Locked(TransientError):
    """Another program's lock is in the way."""


class NoLockPossible(PermanentError):
    """The storage takes no lock: it is full, or we may only read."""


class GaveUp(Exception):
    """The storage has failed for too long; the message is restic's own."""


INCOMPLETE, NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 3, 10, 11, 12

# Exit code -> what to raise, and what to do next. Any other code: see BY_TEXT, else CommandFailed.
BY_CODE: dict[int, tuple[type[RecoveryError], str]] = {
    NO_REPOSITORY: (
        PreconditionError,  # as NoRepository
        "There is no repository: look at `vault` in lifeboat.yaml, or run `lifeboat prepare`.",
    ),
    LOCKED: (
        TransientError,
        "Another program is working on it and its lock is not stale: wait for it to end.",
    ),
    WRONG_PASSWORD: (
        PreconditionError,  # as WrongPassword
        "Set LIFEBOAT_VAULT_PASSWORD to the password with which this vault was made.",
    ),
    130: (TransientError, "It was interrupted: run it again."),
}
# What restic says with exit code 1, or while it goes on trying for 15 minutes.
BY_TEXT: tuple[tuple[str, type[RecoveryError], str], ...] = (
    (r"signal \w+ received", TransientError, "It was interrupted: run it again."),
    (
        r"bucket does not exist|NoSuchBucket",
        PreconditionError,
        "Look at vault.s3.bucket, or make the bucket.",
    ),
    (
        r"Access Key Id you provided does not exist|access key ID .* not exist|InvalidAccessKeyId"
        r"|signature we calculated does not match|SignatureDoesNotMatch",
        PreconditionError,
        "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    ),
    (r"Access Denied|AccessDenied", PreconditionError, "Look at the policy of the access key."),
    (
        r"time difference between|RequestTimeTooSkewed",
        PreconditionError,
        "This machine's clock is wrong: set it (NTP).",
    ),
    (r"empty password", PreconditionError, "Set LIFEBOAT_VAULT_PASSWORD."),
    (
        r"no matching ID found|not found in snapshot|^path .*: not found",
        PreconditionError,
        "It is not in the vault: `lifeboat points` lists what is.",
    ),
    (
        r"no space left on device|quota exceeded",
        PermanentError,
        "Free some space (restic's cache may be removed), then run it again.",
    ),
    (r"permission denied|read-only file system", PermanentError, "Look at owner and mode."),
    (
        r"ciphertext verification failed|hash does not match|unexpected (blob|pack)"
        r"|invalid data returned|wrong data returned|not found in (repository|index)"
        r"|(ReadFull|LoadRaw)\(.*(no such file|key does not exist|NoSuchKey|file is too short)"
        r"|pack .* contains .* errors|repository contains",
        VerificationFailed,
        "This repository is damaged. Recover from the other tier (--from local, --from s3).",
    ),
    (
        r"made no progress",
        TransientError,
        "It hung and was ended. Look for a full disk or a storage that does not answer.",
    ),
    (
        r"connection refused|connection reset|no route to host|no such host|i/o timeout|"
        r"TLS handshake|timeout|server closed|unexpected EOF|SlowDown|Service Unavailable|"
        r"Internal Server Error|Bad Gateway|network is unreachable|broken pipe|context canceled",
        TransientError,
        "Look at the network and at vault.s3.endpoint.",
    ),
)


_DAMAGED_KEY = (
    "One of its keys is damaged, and restic tries no other one after it. Move that file out of the "
    "repository's keys/; if it was not the password's own, that opens it then."
)


def error_of(exit_code: int, text: str, doing: str) -> RecoveryError:
    """Turn restic's exit code and words into one of our errors."""
    if exit_code == NO_REPOSITORY:
        kind, hint = NoRepository, BY_CODE[exit_code][1]
    elif exit_code == WRONG_PASSWORD or "wrong password or no key found" in text:  # 1 in 0.17.0
        kind, hint = WrongPassword, BY_CODE[WRONG_PASSWORD][1]
    elif exit_code == LOCKED:
        kind, hint = Locked, BY_CODE[exit_code][1]
    elif re.search(r"\(<key/\w+>\): invalid data", text):
        kind, hint = DamagedKey, _DAMAGED_KEY
    elif "not a directory" in text:
        kind, hint = NotADirectory, ""
    elif "unable to create lock" in text and not re.search(r"already locked", text):
        kind, hint = NoLockPossible, meaning(text)[1]
    elif exit_code in BY_CODE:
        kind, hint = BY_CODE[exit_code]
    else:
        kind, hint = meaning(text)
    if kind is TransientError:
        return TransientCommandFailed("restic", exit_code, text, doing=doing, hint=hint)
    if exit_code == -signal.SIGKILL:
        hint = "Something killed it: look for `out of memory` in the kernel's log."
    if kind is CommandFailed:
        return CommandFailed("restic", exit_code, text, doing=doing, hint=hint)
    return kind(f"{doing}: {text.rstrip('.') or 'restic said nothing'}.", hint=hint)


def meaning(text: str) -> tuple[type[RecoveryError], str]:
    for pattern, kind, hint in BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, hint
    return CommandFailed, ""
