"""A bucket whose objects were deleted or overwritten: their old versions are made current again.

It needs the bucket's keys and nothing else; what it touches is only added to.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import (
    NothingToDo,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)
from lifeboat.core.forms import RecoverBucket
from lifeboat.core.losses import (
    BucketPlan,
    by_hour,
    find_losses,
    hours_in_words,
    last_moment_before,
)
from lifeboat.core.protection import Wanted
from lifeboat.core.timeline import Phase
from lifeboat.core.versions import (
    Belief,
    Decision,
    Fate,
    Form,
    Version,
    believe,
    decide,
    form_of,
    histories,
    looks_whole,
    name_of_content,
    repository_of,
    was_overwritten,
    with_proven,
)
from lifeboat.settings import S3, Settings, load_settings
from lifeboat.tools import s3
from tasks import artifacts, clock, many, places, progress, protection, recovery
from tasks.orchestration import step
from tasks.record import Run, current_run, recorded

log = logging.getLogger("lifeboat")

PROCEDURE = "recover-bucket"
_NAMED = 10


class Place(BaseModel):
    """The bucket that is recovered, and the name that approves it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    bucket: s3.Bucket
    name: str  # of the platform; of the bucket where there is no lifeboat.yaml
    wanted: Wanted  # how it should be protected
    settings: Settings | None = None


@contextmanager
def recovery_of_bucket(request: RecoverBucket) -> Iterator[tuple[Place, Run]]:
    """Record the recovery; on the platform's own host also hold the platform for it.

    Without lifeboat.yaml the record is kept in the bucket alone.
    """
    if not request.bucket:
        settings = load_settings(request.config or None)
        with recovery.recovery(settings, PROCEDURE) as run:
            yield place_of(settings), run
        return
    bucket = places.named_bucket(
        request.bucket, endpoint=request.endpoint, region=request.region, prefix=request.prefix
    )
    with (
        tempfile.TemporaryDirectory(prefix="lifeboat-") as directory,
        recorded(PROCEDURE, platform=request.bucket, directory=Path(directory)) as run,
        artifacts.shown(run),
    ):
        if not request.dry_run:
            run.when_finished(functools.partial(_publish, bucket))
        want = protection.wanted_of(S3(bucket=request.bucket))
        yield Place(bucket=bucket, name=request.bucket, wanted=want), run


def place_of(settings: Settings) -> Place:
    return Place(
        bucket=places.bucket(settings),
        name=settings.platform,
        wanted=protection.wanted_of(settings.vault.s3),
        settings=settings,
    )


def _publish(bucket: s3.Bucket, run: Run) -> None:
    """Keep the record in the bucket. Never raises."""
    if run.directory is None:
        return
    try:
        for path in sorted(run.directory.iterdir()):
            bucket.put(f"records/runs/{run.id}/{path.name}", path.read_bytes())
    except (RecoveryError, OSError) as error:
        log.warning("The record of %s could not be kept in the bucket: %s", run.id, error)


Histories = Mapping[str, tuple[Version, ...]]


@step(Phase.DETECT, retries=2)
def read_versions(place: Place) -> Histories:
    """Every version of every object, and which current ones are known to be right.

    Raises PreconditionError if the bucket keeps no old versions.
    """
    bucket = place.bucket
    bucket.reachable()
    versioning = s3.versioning_of(bucket)
    if versioning == "suspended":
        raise PreconditionError(
            f"Reading the versions in bucket {bucket.name}: versioning is suspended, so that a "
            "copy could overwrite an old version for good.",
            hint="Nothing was touched. Old versions may well be there: run `lifeboat prepare s3` "
            "with an administrator's key, then this again.",
        )
    if versioning == "never enabled":
        raise PreconditionError(
            f"Reading the versions in bucket {bucket.name}: it keeps none, so what was deleted or "
            "overwritten is gone from it.",
            hint="Nothing was touched. Recover from the local vault (--from local), or from "
            "another copy of the bucket; then `lifeboat prepare s3`.",
        )
    return _read(bucket)


def _read(bucket: s3.Bucket) -> Histories:
    told = progress.of_count(f"Versions in bucket {bucket.name}")
    by_key = histories(s3.list_versions(bucket, on_page=told))
    doubtful = [history for history in by_key.values() if was_overwritten(history)]
    right = many.act_on_all(
        doubtful,
        functools.partial(_is_right, bucket),
        doing="Asking objects whether an earlier recovery brought them back",
    )
    return with_proven(
        by_key,
        (history[0].key for history, is_right in zip(doubtful, right, strict=True) if is_right),
    )


def _is_right(bucket: s3.Bucket, history: tuple[Version, ...]) -> bool:
    now = history[0]
    origin = s3.origin_of(bucket, now)
    if origin is None:
        return False
    belief = believe(history, origin)
    if belief is not Belief.ASK_THE_CONTENT:
        return belief is Belief.YES
    digest = name_of_content(now.key)
    if digest is not None:
        return s3.sha256_of(bucket, now.key) == digest
    # A repository's `config` tells nothing of itself; opening the repository will.
    return form_of(now.key) is Form.RESTIC or looks_whole(now.key, s3.beginning_of(bucket, now.key))


class Choice(BaseModel):
    """What will be done to the bucket."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    as_of: datetime
    told_by_versions: bool  # and not by the operator
    hide_newer: bool
    decisions: tuple[Decision, ...]

    def of(self, fate: Fate) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if decision.fate is fate)

    @property
    def bring_back(self) -> tuple[Version, ...]:
        return tuple(d.version for d in self.of(Fate.BRING_BACK) if d.version)

    def is_within(self, agreed: Choice) -> bool:
        """Whether nothing is done that was not agreed to."""
        return self._deeds() <= agreed._deeds()

    def _deeds(self) -> set[tuple[str, str]]:
        brought_back = {(version.key, version.id) for version in self.bring_back}
        return brought_back | {(decision.key, "") for decision in self.of(Fate.HIDE)}


@step(Phase.DECIDE, retries=2)
def choose(
    place: Place, by_key: Histories, request: RecoverBucket, *, as_of: datetime | None = None
) -> Choice:
    """Decide on each object, as of the moment that is given or named, or that the versions tell.

    Raises PreconditionError if there is none, and NothingToDo if nothing is to be brought back.
    """
    losses = find_losses(by_key)
    as_of = as_of or request.moment or last_moment_before(losses)
    if as_of is None:
        raise PreconditionError(
            f"Choosing the moment before the attack on bucket {place.bucket.name}: no object was "
            f"overwritten, and no repository is gone.\n{hours_in_words(by_hour(losses))}\n",
            hint="Nothing was touched. These may be nothing but prunes. If they are not, name the "
            "moment with --as-of.",
        )
    decisions = _settle(place, decide(by_key, as_of=as_of, hide_newer=request.hide_newer))
    choice = Choice(
        as_of=as_of,
        told_by_versions=request.moment is None,
        hide_newer=request.hide_newer,
        decisions=decisions,
    )
    if not choice.bring_back and not choice.of(Fate.HIDE):
        raise NothingToDo(
            f"Looking for what is missing in bucket {place.bucket.name} since {as_of.isoformat()}: "
            f"all {len(choice.of(Fate.WHOLE))} objects of that moment are there and as they were."
            f"\n{hours_in_words(by_hour(losses))}\n",
            hint="Nothing was touched. If something is missing, name an earlier moment.",
        )
    return choice


def _settle(place: Place, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    """Look at what may rightly have changed: what looks whole stays, the rest is brought back."""
    changed = [decision for decision in decisions if decision.fate is Fate.CHANGED]
    whole = many.act_on_all(
        changed,
        lambda d: looks_whole(d.key, s3.beginning_of(place.bucket, d.key)),
        doing="Looking at what may rightly have changed",
    )
    garbage = {d.key for d, is_whole in zip(changed, whole, strict=True) if not is_whole}
    return tuple(
        Decision(key=d.key, fate=Fate.BRING_BACK, version=d.version) if d.key in garbage else d
        for d in decisions
    )


def plan_for(place: Place, by_key: Histories, choice: Choice) -> BucketPlan:
    bucket = place.bucket
    back, hidden = choice.of(Fate.BRING_BACK), choice.of(Fate.HIDE)
    deleted = sum(decision.deleted for decision in back)
    size = sum(version.bytes for version in choice.bring_back)
    where = f"{bucket.name}/{bucket.full_key('')}"
    hide = (f"hide {len(hidden)} objects of restic that came later",) if hidden else ()
    return BucketPlan(
        procedure=PROCEDURE,
        platform=place.name,
        symptoms=f"{deleted} objects are deleted, {len(back) - deleted} overwritten; "
        f"{len(choice.of(Fate.WHOLE))} are whole",
        points=(),
        target=f"{choice.as_of:%Y-%m-%dT%H:%M:%SZ}"
        + (
            ", the last moment before the first sure sign of an attack"
            if choice.told_by_versions
            else ", as you said"
        ),
        expected_loss=_losses_in_words(choice),
        touches=(
            f"{where}: {len(back)} objects ({size / 1e6:.1f} MB) get a new version, which is a "
            "copy of an old one; no version is removed",
        ),
        steps=(
            f"copy {len(back)} old versions over what is current, in the store itself",
            *hide,
            "list the bucket again and compare",
            "then, by you: take the key away from the thief; `lifeboat recover server`, or "
            "`lifeboat points` on the host",
        ),
        made_at=clock.now(),
        as_of=choice.as_of,
        bring_back=len(back),
        bring_back_bytes=size,
        hide=len(hidden),
        hours=by_hour(find_losses(by_key)),
        warnings=_warnings(place, choice),
    )


def _warnings(place: Place, choice: Choice) -> tuple[str, ...]:
    """What should be put right first, or said otherwise."""
    told = [
        f"{danger}: remove that rule before anything else"
        for danger in s3.dangerous_rules(place.bucket, place.wanted)
    ]
    told += [
        f"the config of {where} was overwritten, and something came into it since; if that "
        "repository was made anew, say --hide-newer too, so that the two are not mixed"
        for where in sorted(_made_anew(choice))
    ]
    return tuple(told)


def _losses_in_words(choice: Choice) -> str:
    told = []
    rewritten = sum(form_of(d.key) is Form.CHANGING for d in choice.of(Fate.BRING_BACK))
    if rewritten:
        told.append(
            f"{rewritten} marks, pages and unfinished WAL segments are set back to that moment"
        )
    newer = choice.of(Fate.NEWER)
    if newer or choice.of(Fate.CHANGED):
        forms = Counter(str(form_of(d.key)) for d in (*newer, *choice.of(Fate.CHANGED)))
        kinds = ", ".join(f"{count} {form}" for form, count in sorted(forms.items()))
        told.append(f"what came later and looks whole stays ({kinds})")
    strange = [d.key for d in newer if form_of(d.key) is Form.UNKNOWN]
    if strange:
        told.append(
            f"not the vault's and left alone: {', '.join(strange[:_NAMED])}"
            + (f" and {len(strange) - _NAMED} more" if len(strange) > _NAMED else "")
        )
    return "; ".join(told) or "nothing of that moment"


def _made_anew(choice: Choice) -> set[str]:
    """Repositories whose `config` is another now, and into which something came since."""
    newer = {repository_of(d.key) for d in choice.of(Fate.NEWER) if form_of(d.key) is Form.RESTIC}
    overwritten = {
        repository_of(d.key)
        for d in choice.of(Fate.BRING_BACK)
        if not d.deleted and d.key.endswith("/config")
    }
    return newer & overwritten


@step(Phase.RESTORE)
def bring_back(place: Place, choice: Choice) -> None:
    """Copy the old versions over what is current. Safe to run again after any failure."""
    run, versions = current_run(), choice.bring_back
    run.keep(
        "brought-back.txt",
        "".join(f"{v.key}\t{v.id}\t{v.at.isoformat()}\t{v.bytes}\n" for v in versions),
    )
    run.about_to("bring back", objects=str(len(versions)), as_of=choice.as_of.isoformat())
    run.fact(
        as_of=choice.as_of.isoformat(),
        objects_brought_back=len(versions),
        bytes_brought_back=sum(version.bytes for version in versions),
    )
    many.act_on_all(
        versions,
        functools.partial(s3.make_current, place.bucket),
        doing=f"Bringing back objects in bucket {place.bucket.name}",
    )


@step(Phase.RESTORE, retries=2)
def hide(place: Place, choice: Choice) -> None:
    """Put delete markers on restic's objects that came later; their versions stay."""
    keys = [decision.key for decision in choice.of(Fate.HIDE)]
    if s3.versioning_of(place.bucket) != "enabled":
        raise PreconditionError(
            f"Hiding objects in bucket {place.bucket.name}: whether it keeps versions is not known "
            "to this key, and without them to hide is to delete.",
            hint="Give the key s3:GetBucketVersioning.",
        )
    run = current_run()
    run.keep("hidden.txt", "".join(f"{key}\n" for key in keys))
    run.about_to("hide", objects=str(len(keys)))
    place.bucket.delete(keys)
    run.fact(objects_hidden=len(keys))


@step(Phase.VERIFY, retries=2)
def prove(place: Place, choice: Choice) -> None:
    """List the bucket again: all of it must be as was decided.

    Raises VerificationFailed, naming some of what is not.
    """
    again = decide(_read(place.bucket), as_of=choice.as_of, hide_newer=choice.hide_newer)
    left = [d for d in _settle(place, again) if d.fate in (Fate.BRING_BACK, Fate.HIDE)]
    if left:
        named = ", ".join(decision.key for decision in left[:_NAMED])
        raise VerificationFailed(
            f"Comparing bucket {place.bucket.name} with {choice.as_of.isoformat()}: {len(left)} "
            f"objects are not as they were, e.g. {named}.",
            hint="Is somebody still writing to it? Take the thief's key away, then run it again.",
        )
    whole = sum(decision.fate is Fate.WHOLE for decision in again)
    log.info("All %d objects of %s are there and as they were.", whole, choice.as_of.isoformat())
