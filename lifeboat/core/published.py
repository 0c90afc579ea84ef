"""What changed in the public part of the configuration, and how a commit says so. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import BaseModel, ConfigDict

_NAMED = 3  # files named in a commit's first line


class Change(BaseModel):
    """How the files are to differ from the commit before, by name."""

    model_config = ConfigDict(frozen=True)

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)

    @property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return {"change": self.changed, "add": self.added, "remove": self.removed}

    def summary(self) -> str:
        """One line: `Change nginx/nginx.prod.conf, add monitoring/alerts.yml`."""
        told = ", ".join(f"{verb} {_some(names)}" for verb, names in self._groups.items() if names)
        return told[:1].upper() + told[1:]

    def message(self, *, host: str, point: str) -> str:
        """A commit's message: what changed, on which host, and in which recovery point it is."""
        lines = [self.summary(), "", f"Host: {host}", f"Recovery point: {point}"]
        if any(len(names) > _NAMED for names in self._groups.values()):
            for verb, names in self._groups.items():
                lines += ["", *(f"{verb} {name}" for name in names)] if names else []
        return "\n".join(lines) + "\n"


def compare(
    before: Mapping[str, str], after: Mapping[str, str], *, ours: Collection[str]
) -> Change:
    """Given an identity of each file by its name, say what differs.

    Files that are gone are removed only if they are `ours`: others may keep theirs beside them.
    """
    return Change(
        changed=tuple(sorted(n for n in after if n in before and before[n] != after[n])),
        added=tuple(sorted(n for n in after if n not in before)),
        removed=tuple(sorted(n for n in before if n not in after and n in ours)),
    )


def _some(names: tuple[str, ...]) -> str:
    shown = names if len(names) <= _NAMED else names[: _NAMED - 1]
    told = [name.replace("\n", "?") for name in shown]
    more = len(names) - len(shown)
    if more:
        return f"{', '.join(told)} and {more} more"
    return " and ".join(filter(None, (", ".join(told[:-1]), told[-1])))
