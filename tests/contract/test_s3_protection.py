"""A bucket's protection as Amazon would have it (moto): each shown missing, set, and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from lifeboat.core.errors import PreconditionError, TransientError
from lifeboat.core.protection import (
    Finding,
    Protection,
    State,
    Wanted,
    due_for_renewal,
    wrong,
)
from lifeboat.tools import s3
from lifeboat.tools.s3 import lifecycle, policy
from tests.contract.test_s3_bucket import bucket_named

NAME = "lifeboat-vault"
WANTED = Wanted(
    undo_days=30,
    lock_days=30,
    lock_mode="governance",
    passing=("configs/locks/",),
    rewritten=("records/sightings/",),
)
NOW = datetime(2026, 11, 25, tzinfo=timezone.utc)


@pytest.fixture
def lockable() -> Iterator[s3.Bucket]:
    """A bucket that was made with Object Lock, but without a retention by default."""
    with mock_aws():
        bucket = bucket_named(NAME)
        bucket.client.create_bucket(Bucket=NAME, ObjectLockEnabledForBucket=True)
        yield bucket


@pytest.fixture
def plain() -> Iterator[s3.Bucket]:
    with mock_aws():
        bucket = bucket_named(NAME, prefix="vault")
        bucket.client.create_bucket(Bucket=NAME)
        yield bucket


def look(bucket: s3.Bucket, protection: Protection, wanted: Wanted = WANTED) -> Finding:
    return s3.look(bucket, wanted, protection)


@pytest.mark.parametrize("protection", s3.SETTABLE)
def test_each_protection_is_missed_then_set_once_and_then_found(
    lockable: s3.Bucket, protection: Protection
) -> None:
    if protection is Protection.VERSIONING:  # a bucket with Object Lock has it from the beginning
        lockable = bucket_named("without-object-lock")
        lockable.client.create_bucket(Bucket=lockable.name)
    before = look(lockable, protection)
    assert before.state is State.EXPOSED
    assert before.remedy
    assert s3.protect(lockable, WANTED, protection, dry_run=True)
    assert look(lockable, protection) == before, "a dry run changes nothing"
    assert s3.protect(lockable, WANTED, protection)
    after = look(lockable, protection)
    assert (after.state, after.remedy) == (State.PROTECTED, "")
    assert s3.protect(lockable, WANTED, protection) == "", "nothing is left to do"


def test_suspended_versioning_protects_nothing(plain: s3.Bucket) -> None:
    s3.protect(plain, WANTED, Protection.VERSIONING)
    plain.client.put_bucket_versioning(Bucket=NAME, VersioningConfiguration={"Status": "Suspended"})
    found = look(plain, Protection.VERSIONING)
    assert (found.state, found.evidence) == (State.EXPOSED, "versioning is suspended")
    assert s3.versioning_of(plain) == "suspended"


def test_object_lock_that_the_bucket_can_not_have_is_told(plain: s3.Bucket) -> None:
    with pytest.raises(PreconditionError, match="new buckets only"):
        s3.protect(plain, WANTED, Protection.OBJECT_LOCK)


@pytest.mark.parametrize(
    ("mode", "days", "state"),
    [
        ("GOVERNANCE", 30, State.PROTECTED),
        ("GOVERNANCE", 29, State.EXPOSED),
        ("COMPLIANCE", 30, State.PROTECTED),
    ],
)
def test_a_lock_that_is_too_short_is_not_enough(
    lockable: s3.Bucket, mode: str, days: int, state: State
) -> None:
    set_retention(lockable, mode, days)
    assert look(lockable, Protection.OBJECT_LOCK).state is state


def test_what_is_stronger_than_wanted_is_never_weakened(lockable: s3.Bucket) -> None:
    set_retention(lockable, "COMPLIANCE", 10)
    s3.protect(lockable, WANTED, Protection.OBJECT_LOCK)
    assert s3.default_retention(lockable) == ("compliance", 30)
    set_retention(lockable, "GOVERNANCE", 90)
    strict = WANTED.model_copy(update={"lock_mode": "compliance"})
    assert look(lockable, Protection.OBJECT_LOCK, strict).state is State.EXPOSED
    s3.protect(lockable, strict, Protection.OBJECT_LOCK)
    assert s3.default_retention(lockable) == ("compliance", 90)


def set_retention(bucket: s3.Bucket, mode: str, days: int) -> None:
    rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
    bucket.client.put_object_lock_configuration(
        Bucket=bucket.name,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )


# --- lifecycle ------------------------------------------------------------------------------


def rule(name: str, prefix: str = "", **what: Any) -> dict[str, Any]:
    return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, **what}


OLD_LOGS = rule("old-logs", "logs/", Expiration={"Days": 7})


def set_rules(bucket: s3.Bucket, *rules: dict[str, Any]) -> None:
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration={"Rules": list(rules)}
    )


def rules_of(bucket: s3.Bucket) -> list[dict[str, Any]]:
    return bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]


def test_the_rules_of_others_stay_and_ours_are_renewed(plain: s3.Bucket) -> None:
    set_rules(plain, OLD_LOGS, rule("lifeboat-of-last-year", Expiration={"Days": 5}))
    told = s3.protect(plain, WANTED, Protection.LIFECYCLE)
    assert "1 rules of others stay" in told
    names = [rule["ID"] for rule in rules_of(plain)]
    assert names == [
        "old-logs",
        "lifeboat-old-versions",
        "lifeboat-configs-locks",
        "lifeboat-records-sightings",
    ]
    ours = {r["ID"]: r for r in rules_of(plain)}
    assert ours["lifeboat-old-versions"]["Filter"] == {"Prefix": "vault/"}
    assert ours["old-logs"]["Expiration"]["Days"] == 7
    longer = WANTED.model_copy(update={"undo_days": 90})
    assert look(plain, Protection.LIFECYCLE, longer).state is State.EXPOSED
    s3.protect(plain, longer, Protection.LIFECYCLE)
    assert len(rules_of(plain)) == 4
    assert look(plain, Protection.LIFECYCLE, longer).state is State.PROTECTED


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (rule("tidy", Expiration={"Days": 30}), "rule tidy deletes current objects"),
        (rule("tidy", "vault/", Expiration={"Date": NOW}), "rule tidy deletes current objects"),
        (rule("tidy", "vault/file-backups/", Expiration={"Days": 1}), "rule tidy deletes"),
        (
            rule("cold", Transitions=[{"Days": 30, "StorageClass": "DEEP_ARCHIVE"}]),
            "rule cold moves backups to DEEP_ARCHIVE",
        ),
        (
            rule("thrift", NoncurrentVersionExpiration={"NoncurrentDays": 3}),
            "rule thrift removes old versions after 3 of 30 days",
        ),
        (rule("aside", "logs/", Expiration={"Days": 1}), ""),
        (
            rule("same", "vault/configs/locks/", NoncurrentVersionExpiration={"NoncurrentDays": 1}),
            "",
        ),
        (rule("warm", Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}]), ""),
        ({**rule("off", Expiration={"Days": 1}), "Status": "Disabled"}, ""),
        ({"Prefix": "", "Status": "Enabled", "Expiration": {"Days": 9}}, "the one for everything"),
    ],
)
def test_a_rule_of_others_that_lets_backups_go_is_named(theirs: dict, told: str) -> None:
    ours = lifecycle.our_rules("vault/", WANTED)
    found = "; ".join(lifecycle.problems([theirs, *ours], "vault/", WANTED))
    assert told in found
    assert bool(told) == bool(found)


def test_rules_of_others_that_do_the_same_are_enough() -> None:
    theirs = rule(
        "by-terraform",
        NoncurrentVersionExpiration={"NoncurrentDays": 45},
        AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7},
    )
    assert list(lifecycle.problems([theirs], "vault/", WANTED)) == []
    for filtered in ({"Tag": {"Key": "a", "Value": "b"}}, {"And": {"Prefix": "", "Tags": []}}):
        only_some = {**theirs, "Filter": filtered}
        assert len(list(lifecycle.problems([only_some], "vault/", WANTED))) == 2
    assert len(list(lifecycle.problems([], "vault/", WANTED))) == 2


# --- policy -----------------------------------------------------------------------------------

THEIRS = {
    "Sid": "Auditors",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
    "Action": "s3:GetObject",
    "Resource": f"arn:aws:s3:::{NAME}/*",
}


def test_the_statements_of_others_stay(lockable: s3.Bucket) -> None:
    lockable.client.put_bucket_policy(
        Bucket=NAME, Policy=json.dumps({"Version": "2012-10-17", "Statement": [THEIRS]})
    )
    assert look(lockable, Protection.TLS_ONLY).state is State.EXPOSED
    s3.protect(lockable, WANTED, Protection.TLS_ONLY)
    told = json.loads(lockable.client.get_bucket_policy(Bucket=NAME)["Policy"])
    assert told["Statement"][0] == THEIRS
    assert told["Statement"][1]["Sid"] == "LifeboatTlsOnly"
    again = json.loads(policy.with_statement(json.dumps(told), NAME, "us-east-1", ""))
    assert again == told, "it is not added twice"


def test_a_demand_for_tls_counts_only_if_it_is_for_everybody_and_all_of_it() -> None:
    ours = json.loads(policy.with_statement(None, NAME, "eu-central-1", "vault/"))
    [statement] = ours["Statement"]
    assert statement["Resource"] == [f"arn:aws:s3:::{NAME}/vault/*"]

    def demands(**changes: Any) -> bool:
        changed = {**statement, **changes}
        text = json.dumps({"Version": "2012-10-17", "Statement": changed})
        return policy.demands_tls(text, NAME, "eu-central-1", "vault/")

    assert demands()
    assert demands(Action="*", Principal={"AWS": "*"}, Resource="*")
    assert demands(Resource=f"arn:aws:s3:::{NAME}/*")
    assert not demands(Effect="Allow")
    assert not demands(Principal={"AWS": "arn:aws:iam::123456789012:root"})
    assert not demands(Action="s3:GetObject")
    assert not demands(Resource=f"arn:aws:s3:::{NAME}/elsewhere/*")
    assert not demands(Condition={"Bool": {"aws:SecureTransport": "true"}})
    assert not demands(Condition={})
    more = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, **statement["Condition"]}
    assert not demands(Condition=more)
    assert not policy.demands_tls(None, NAME, "eu-central-1", "")
    assert '"arn:aws-cn:s3:::' in policy.with_statement(None, NAME, "cn-north-1", "")
    assert '"arn:aws-us-gov:s3:::' in policy.with_statement(None, NAME, "us-gov-west-1", "")


def test_without_tls_there_is_no_demand_for_it() -> None:
    import dataclasses

    bucket = dataclasses.replace(bucket_named(NAME), endpoint="http://10.0.0.7:8333")
    found = look(bucket, Protection.TLS_ONLY)
    assert (found.state, found.evidence) == (
        State.ABSENT,
        "it is reached without TLS, at http://10.0.0.7:8333",
    )
    with pytest.raises(PreconditionError, match="without TLS"):
        s3.protect(bucket, WANTED, Protection.TLS_ONLY)


# --- rights -----------------------------------------------------------------------------------


def test_a_key_that_can_delete_for_good_is_found_out_by_the_deed(lockable: s3.Bucket) -> None:
    found = look(lockable, Protection.WRITER_RIGHTS)
    assert found.state is State.EXPOSED
    assert "can delete versions for good, and so could a thief" in found.evidence


def test_a_key_that_can_go_around_the_lock_is_found_out_too(
    lockable: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_retention(lockable, "GOVERNANCE", 1)
    found = look(lockable, Protection.WRITER_RIGHTS)
    assert "by going around Object Lock" in found.evidence
    set_retention(lockable, "COMPLIANCE", 1)
    found = look(lockable, Protection.WRITER_RIGHTS)
    assert (found.state, found.evidence) == (
        State.PROTECTED,
        "this key can't delete a version for good",
    )
    assert lockable.list() == (), "the probes are gone from sight"


# --- what a store has not, or does not let us see ----------------------------------------------


def answer(monkeypatch: pytest.MonkeyPatch, bucket: s3.Bucket, code: str, status: int) -> None:
    def refuse(**_: Any) -> None:
        told = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(told, "GetPublicAccessBlock")

    monkeypatch.setattr(bucket.client, "get_public_access_block", refuse)


@pytest.mark.parametrize(
    ("code", "status", "state"),
    [
        ("NotImplemented", 501, State.ABSENT),
        ("MethodNotAllowed", 405, State.ABSENT),
        ("SomethingOfTheirOwn", 501, State.ABSENT),
        ("AccessDenied", 403, State.UNKNOWN),
    ],
)
def test_what_a_store_has_not_and_what_a_key_may_not_see_are_told_apart(
    plain: s3.Bucket, monkeypatch: pytest.MonkeyPatch, code: str, status: int, state: State
) -> None:
    answer(monkeypatch, plain, code, status)
    found = look(plain, Protection.PUBLIC_ACCESS_BLOCK)
    assert found.state is state
    assert found.remedy
    with pytest.raises(PreconditionError, match="does not have it|access is denied"):
        s3.protect(plain, WANTED, Protection.PUBLIC_ACCESS_BLOCK)


def test_a_store_that_does_not_answer_is_no_finding(
    plain: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, plain, "InternalError", 500)
    with pytest.raises(TransientError):
        look(plain, Protection.PUBLIC_ACCESS_BLOCK)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("accepted", [True, False])
def test_only_what_is_protected_or_accepted_by_name_is_right(state: State, accepted: bool) -> None:
    found = Finding(protection=Protection.OBJECT_LOCK, state=state, evidence="")
    names = [Protection.OBJECT_LOCK] if accepted else [Protection.VERSIONING]
    assert bool(wrong([found], names)) == (state is not State.PROTECTED and not accepted)


# --- renewal ------------------------------------------------------------------------------------


def test_every_old_object_is_locked_anew_long_before_its_lock_ends() -> None:
    born = NOW - timedelta(days=11)
    days = [
        day
        for day in range(30)
        if due_for_renewal("file-backups/data/01/ab", born, WANTED, now=NOW + timedelta(days=day))
    ]
    assert len(days) == 3
    assert days[1] - days[0] == days[2] - days[1] == WANTED.renewal_days == 10
    assert not any(
        due_for_renewal(str(n), NOW - timedelta(days=9), WANTED, now=NOW) for n in range(100)
    )
    today = sum(due_for_renewal(str(n), born, WANTED, now=NOW) for n in range(1000))
    assert 50 < today < 200, "the work is spread"
