"""Lifecycle rules: ours made and merged with those of others, and all of them judged.

Pure: rules are as S3 writes them. Source: Amazon S3 User Guide, "Lifecycle configuration elements".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lifeboat.core.protection import Wanted

Rule = Mapping[str, Any]

_OURS = "lifeboat-"
_PASSING_DAYS = 1  # the least that S3 knows
_KEPT_OF_REWRITTEN = 2
_SLOW = {"GLACIER", "DEEP_ARCHIVE"}  # restic can't read what lies there


def our_rules(prefix: str, wanted: Wanted) -> tuple[Rule, ...]:
    """The rules for a vault whose keys begin with `prefix`."""
    rules: list[Rule] = [
        {
            "ID": f"{_OURS}old-versions",
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "NoncurrentVersionExpiration": {"NoncurrentDays": wanted.undo_days},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": wanted.unfinished_days},
        }
    ]
    for below, kept in (
        *((below, 0) for below in wanted.passing),
        *((below, _KEPT_OF_REWRITTEN) for below in wanted.rewritten),
    ):
        few = {"NewerNoncurrentVersions": kept} if kept else {}
        rules.append(
            {
                "ID": f"{_OURS}{below.strip('/').replace('/', '-')}",
                "Status": "Enabled",
                "Filter": {"Prefix": prefix + below},
                "NoncurrentVersionExpiration": {"NoncurrentDays": _PASSING_DAYS, **few},
            }
        )
    return tuple(rules)


def merged(existing: Sequence[Rule], ours: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of others as they are, then ours; what we made earlier gives way."""
    others = (rule for rule in existing if not str(rule.get("ID", "")).startswith(_OURS))
    return (*others, *ours)


def is_as_wanted(existing: Sequence[Rule], ours: Sequence[Rule]) -> bool:
    """Whether our rules are there and need not be written."""

    def gist(rules: Sequence[Rule]) -> set[tuple[Any, ...]]:
        # Stores give back more than they were told, and some less.
        return {
            (
                rule.get("ID"),
                rule.get("Status"),
                _prefix_of(rule),
                rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"),
                rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
            )
            for rule in rules
            if str(rule.get("ID", "")).startswith(_OURS)
        }

    return gist(existing) == gist(ours)


def problems(rules: Sequence[Rule], prefix: str, wanted: Wanted) -> Iterator[str]:
    """What is wrong with all rules together, whoever made them."""
    yield from dangers(rules, prefix, wanted)
    enabled = [rule for rule in rules if rule.get("Status") == "Enabled"]
    whole = [rule for rule in enabled if prefix.startswith(_prefix_of(rule)) and _for_all(rule)]
    if not any("NoncurrentVersionExpiration" in rule for rule in whole):
        yield "no rule removes old versions, which are paid for without end"
    if not any("AbortIncompleteMultipartUpload" in rule for rule in whole):
        yield "no rule gives up unfinished uploads, which are paid for without end"


def dangers(rules: Sequence[Rule], prefix: str, wanted: Wanted) -> Iterator[str]:
    """Rules that let backups, or their old versions, go too soon. A thief may have made them."""
    enabled = [rule for rule in rules if rule.get("Status") == "Enabled"]
    short_lived = tuple(prefix + below for below in (*wanted.passing, *wanted.rewritten))
    for rule in enabled:
        there = _prefix_of(rule)
        if not (there.startswith(prefix) or prefix.startswith(there)):
            continue
        name = rule.get("ID") or f"the one for {there or 'everything'}"
        expiration = rule.get("Expiration", {})
        if "Days" in expiration or "Date" in expiration:
            yield f"rule {name} deletes current objects, that is backups, by their age"
        slow = {t.get("StorageClass") for t in rule.get("Transitions", ())} & _SLOW
        if slow:
            yield f"rule {name} moves backups to {', '.join(sorted(slow))}, where none can be read"
        days = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
        if days is not None and days < wanted.undo_days and not there.startswith(short_lived):
            yield f"rule {name} removes old versions after {days} of {wanted.undo_days} days"


def _filter_of(rule: Rule) -> Mapping[str, Any]:
    told = rule.get("Filter") or {}
    return {**told, **told.get("And", {})}


def _prefix_of(rule: Rule) -> str:
    return rule.get("Prefix") or _filter_of(rule).get("Prefix") or ""


def _for_all(rule: Rule) -> bool:
    """Whether it holds for every object below its prefix, whatever its tags and size."""
    return not set(_filter_of(rule)) - {"Prefix", "And"}
