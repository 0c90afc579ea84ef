"""What a commit of the public configuration says, and what must never be in one."""

from __future__ import annotations

import base64

import pytest

from lifeboat.core.published import Change, compare
from lifeboat.core.secrecy import Secret, has_private_key, secrets_in


@pytest.mark.parametrize(
    ("before", "after", "ours", "change"),
    [
        ({}, {"a": "1"}, (), Change(added=("a",))),
        ({"a": "1"}, {"a": "1"}, (), Change()),
        ({"a": "1"}, {"a": "2"}, (), Change(changed=("a",))),
        ({"a": "1"}, {}, ("a",), Change(removed=("a",))),
        ({"README": "1"}, {}, ("a",), Change()),  # somebody else's
        ({"b": "1", "a": "1", "c": "1"}, {"b": "2", "d": "1"}, "abc", None),
    ],
)
def test_what_differs_and_nothing_of_others(before, after, ours, change) -> None:
    change = Change(changed=("b",), added=("d",), removed=("a", "c")) if change is None else change
    found = compare(before, after, ours=ours)
    assert found == change
    assert bool(found) is (found != Change())


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        (
            Change(changed=("nginx/nginx.prod.conf",), added=("monitoring/alerts.yml",)),
            "Change nginx/nginx.prod.conf, add monitoring/alerts.yml",
        ),
        (Change(removed=("a", "b")), "Remove a and b"),
        (Change(added=("a", "b", "c")), "Add a, b and c"),
        (Change(added=("a", "b", "c", "d", "e")), "Add a, b and 3 more"),
        (Change(changed=("a\nb",)), "Change a?b"),
        (Change(), ""),
    ],
)
def test_the_first_line_says_what_changed(change: Change, summary: str) -> None:
    assert change.summary() == summary
    message = change.message(host="srv1", point="config-20260131T031500Z")
    assert message.startswith(summary + "\n\nHost: srv1\nRecovery point: config-20260131T031500Z\n")


def test_all_names_are_told_below_where_the_first_line_leaves_some_out() -> None:
    names = tuple("abcdef")
    body = Change(changed=names, added=("x",)).message(host="h", point="p")
    assert [line for line in body.splitlines() if line.startswith("change ")] == [
        f"change {name}" for name in names
    ]
    assert "add x" in body.splitlines()


VALUE = "s3cr&t/püzzle"


@pytest.mark.parametrize(
    "text",
    [
        f"password: {VALUE}",
        "postgres://cad:s3cr%26t%2Fp%C3%BCzzle@db/cad",
        "auth: " + base64.b64encode(VALUE.encode()).decode(),
        "auth: " + base64.b64encode(VALUE.encode() + b" and more").decode(),
    ],
)
def test_a_known_secret_is_found_in_any_form_and_told_by_its_name(text: str) -> None:
    known = [Secret("A", "something else"), Secret("PASSWORD", VALUE), Secret("AGAIN", VALUE)]
    assert secrets_in(text.encode(), known) == ("AGAIN", "PASSWORD")
    assert VALUE not in repr(known)


def test_what_is_too_short_to_be_told_from_chance_is_not_looked_for() -> None:
    assert secrets_in(b"listen 5432;", [Secret("POSTGRES_PORT", "5432")]) == ()


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("-----BEGIN PRIVATE KEY-----\n", True),
        ("-----BEGIN RSA PRIVATE KEY-----", True),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----", True),
        ("x\r\n-----BEGIN OPENSSH PRIVATE KEY-----", True),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", True),
        ("AGE-SECRET-KEY-1QQQ", True),
        ("PuTTY-User-Key-File-3: ssh-ed25519", True),
        ("-----BEGIN PUBLIC KEY-----", False),
        ("-----BEGIN CERTIFICATE-----", False),
        ("ssl_certificate_key /etc/x.key;  # the PRIVATE KEY", False),
    ],
)
def test_private_keys_of_every_kind_are_known(text: str, private: bool) -> None:
    assert has_private_key(text.encode()) is private
