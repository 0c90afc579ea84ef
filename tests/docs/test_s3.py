"""What docs/s3.md says is so: the policies, the commands, the names and the defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from lifeboat.cli import app
from lifeboat.core.protection import Protection, Wanted
from lifeboat.settings import S3
from tasks import places

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "s3.md").read_text()
POLICIES = {
    name: json.loads(text)
    for name, text in re.findall(r"^```json (\w+)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
}
DESTROYS = {
    "s3:DeleteObjectVersion",
    "s3:BypassGovernanceRetention",
    "s3:PutBucketVersioning",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketPublicAccessBlock",
    "s3:DeleteBucket",
}


def actions(policy: dict, effect: str) -> set[str]:
    found: set[str] = set()
    for statement in policy["Statement"]:
        if statement["Effect"] == effect:
            told = statement["Action"]
            found |= set(told if isinstance(told, list) else [told])
    return found


def test_there_are_three_policies() -> None:
    assert set(POLICIES) == {"writer", "reader", "administrator"}
    for policy in POLICIES.values():
        assert policy["Version"] == "2012-10-17"
        sids = [statement["Sid"] for statement in policy["Statement"]]
        assert len(set(sids)) == len(sids)
        assert all(sid.isalnum() for sid in sids)


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_has_a_wildcard_or_reaches_beyond_the_bucket(name: str) -> None:
    for statement in POLICIES[name]["Statement"]:
        assert not {"NotAction", "NotResource"} & set(statement)
        resources = statement["Resource"]
        for resource in resources if isinstance(resources, list) else [resources]:
            assert resource in ("arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*")
    for effect in ("Allow", "Deny"):
        assert all("*" not in action for action in actions(POLICIES[name], effect))


def test_the_writer_can_destroy_nothing_whatever_else_it_is_allowed() -> None:
    writer = POLICIES["writer"]
    assert actions(writer, "Deny") >= DESTROYS
    assert not actions(writer, "Allow") & actions(writer, "Deny")
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= actions(writer, "Allow")
    [lengthens] = [s for s in writer["Statement"] if s["Action"] == "s3:PutObjectRetention"]
    [(condition, told)] = lengthens["Condition"].items()
    assert condition == "NumericLessThanEquals"
    assert told == {
        "s3:object-lock-remaining-retention-days": str(S3(bucket="bucket").lock_days + 1)
    }


def test_the_reader_writes_nothing_and_the_administrator_deletes_nothing_for_good() -> None:
    reads = actions(POLICIES["reader"], "Allow")
    assert all(action.startswith(("s3:Get", "s3:List")) for action in reads)
    assert {"s3:ListBucketVersions", "s3:GetObjectVersion"} <= reads
    both = reads | actions(POLICIES["writer"], "Allow")
    assert not both & DESTROYS
    administers = actions(POLICIES["administrator"], "Allow")
    assert not administers & {"s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"}


def test_every_protection_is_explained_by_name() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT, re.MULTILINE) == [
        str(protection) for protection in Protection
    ]


def test_the_example_of_settings_holds_and_its_values_are_the_defaults() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    told = YAML(typ="safe").load(text.replace("BUCKET", "bucket"))["vault"]["s3"]
    example, default = S3.model_validate(told), S3(bucket="bucket")
    assert example.without
    assert example.model_copy(update={"without": {}}) == default
    assert f"`vault.s3.lock_days`, {default.lock_days}" in DOCUMENT
    assert f"`vault.s3.undo_days`, {default.undo_days}" in DOCUMENT
    unfinished = Wanted.model_fields["unfinished_days"].default
    assert f"unfinished uploads for {unfinished} " in DOCUMENT


def test_every_command_and_option_exists() -> None:
    known = get_command(app).commands
    options = {
        words: {option for parameter in command.params for option in parameter.opts}
        for words, command in (
            ("recover bucket", known["recover"].commands["bucket"]),
            ("prepare s3", known["prepare"]),
        )
    }
    for words, line in re.findall(r"lifeboat (recover bucket|prepare s3)([^\n`]*)", DOCUMENT):
        assert set(re.findall(r"--[a-z-]+", line)) <= options[words]
    for option in ("--as-of", "--hide-newer", "--bucket", "--dry-run"):
        assert option in options["recover bucket"]
    for first in re.findall(r"`lifeboat ([a-z-]+)", DOCUMENT):
        assert first in known


def test_the_prefix_of_unfinished_segments_is_the_one_with_a_rule() -> None:
    [prefix] = [prefix for prefix in places.REWRITTEN_IN_S3 if prefix.startswith("database/")]
    assert f"`{prefix}`" in DOCUMENT
