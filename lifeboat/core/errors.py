"""What can go wrong, told apart by what the caller should do about it.

RecoveryError                 every error that Lifeboat raises on purpose
├── TransientError            the same call may work in a moment: retried
├── PermanentError            the same call will fail again: not retried
│   ├── PreconditionError     refused before anything was touched
│   │   ├── LockBusy          another recovery, or a backup of the same asset, is running
│   │   ├── NothingToDo       what was asked for is as it should be already
│   │   ├── NotApproved       there was nobody to ask, or what was typed is not the name
│   │   │   ├── Rejected      a person said no
│   │   │   ├── NobodyApproved  nobody answered in time
│   │   │   └── AgreementVoid  what was agreed to does not hold any more
│   │   │       ├── NoLongerNeeded  nothing is wrong any more
│   │   │       ├── Overtaken  another recovery is at work, or has done it
│   │   │       ├── PlanChanged  it is another plan by now
│   │   │       └── Withdrawn  who proposed it took it back
│   │   └── SettingsError     lifeboat.yaml or the environment is wrong
│   └── VerificationFailed    the work was done, and its result is not good
└── CommandFailed             an outside program ended badly: not retried
    └── TransientCommandFailed  it may pass (a lock, a network time-out): retried
"""

from __future__ import annotations


class RecoveryError(Exception):
    """Root of all of Lifeboat's errors.

    `message` says what was being done and what went wrong; `hint` says what to do next.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self):
        # Keyword-only arguments are lost by the default reduction; tasks cross process borders.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[RecoveryError], args: tuple, state: dict) -> RecoveryError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class TransientError(RecoveryError):
    """The same call may work in a moment."""


class PermanentError(RecoveryError):
    """The same call will fail again."""


class PreconditionError(PermanentError):
    """Refused before anything was touched."""


class LockBusy(PreconditionError):
    """Another run holds the lock at the data."""


class NothingToDo(PreconditionError):
    """What a recovery was asked to bring back is whole, and runs."""


class NotApproved(PreconditionError):
    """The plan was shown and not approved."""


class Rejected(NotApproved):
    """A person read the plan and said no."""


class NobodyApproved(NotApproved):
    """The plan was shown, and nobody answered in time."""


class AgreementVoid(NotApproved):
    """A person agreed to the plan, and by then it was not what would have been done."""


class NoLongerNeeded(AgreementVoid):
    """What was wrong is not wrong any more."""


class Overtaken(AgreementVoid):
    """Another recovery of the same is at work, or has done it meanwhile."""


class PlanChanged(AgreementVoid):
    """What would be done now is something else than what was agreed to."""


class Withdrawn(AgreementVoid):
    """Who proposed the recovery, or a person, took it back before it was approved."""


class SettingsError(PreconditionError):
    """lifeboat.yaml or the environment is wrong."""


class VerificationFailed(PermanentError):
    """The work was done, and its result is not good."""


class CommandFailed(RecoveryError):
    """An outside program ended with an exit code that does not mean success.

    `exit_code` is negative when a signal ended it, as in `subprocess`.
    """

    def __init__(
        self, program: str, exit_code: int, stderr_tail: str, *, doing: str, hint: str = ""
    ) -> None:
        self.program = program
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.doing = doing
        how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        said = f": {stderr_tail.strip()}" if stderr_tail.strip() else " and said nothing"
        super().__init__(f"{doing}: {program} {how}{said}.", hint=hint)


class TransientCommandFailed(CommandFailed, TransientError):
    """An outside program failed in a way that may pass (a lock, a network time-out)."""
