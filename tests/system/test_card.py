"""The bootstrap card of a host with a real vault: complete, right, and without a secret."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess

import pytest

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("hosts")]

CARD = """\
card:
  lifeboat_repository: https://canary-of-git@git.example.test/lifeboat.git
  contacts:
    - {role: DevOps Lead (primary), name: A Person, phone: +1-555-0101}
"""


def secrets_of(host) -> set[str]:
    return {host.canary, "canary-of-git", "test-access", "test-secret-key"}


def test_it_has_what_a_blank_machine_needs_and_no_secret(host, tmp_path) -> None:
    host.write_yaml(sections=CARD)
    point = host.run("backup", "config").stdout.strip()
    done = host.run("card")
    text = done.stdout
    for needed in (
        "git clone https://git.example.test/lifeboat.git lifeboat",
        "DevOps Lead (primary), +1-555-0101",
        point,
        "NEVER VERIFIED",
        host.settings.vault.s3.bucket,
        host.prefix,
        str(host.root),
        "LIFEBOAT_VAULT_PASSWORD",
    ):
        assert needed in text
    assert "S3 holds no point of database" in done.stderr
    pdf = tmp_path / "card.pdf"
    assert host.run("card", "--pdf", str(pdf), "--paper", "letter").stdout.strip() == str(pdf)
    shown = [text, done.stderr, host.run("card", "--json").stdout]
    if shutil.which("pdftotext"):
        words = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True)
        assert point in words.stdout and host.prefix in words.stdout
        shown.append(words.stdout)
    for said in shown:
        assert not [secret for secret in secrets_of(host) if secret in said]

    # The one command reaches the vault and gets as far as this half-filled one lets it.
    begin = text.index("lifeboat recover server")
    typed = text[begin : text.index("\n\n", begin)].replace("\\\n", " ")
    words = [*shlex.split(typed)[1:-1], str(tmp_path / "new"), "--dry-run"]
    blank = host.run(*words, ok=3, LIFEBOAT_CONFIG="/nowhere")
    assert "pg_" in blank.stderr or "postgres" in blank.stderr.lower()


def test_the_secret_of_the_envelope_is_known_from_a_wrong_one(host) -> None:
    told = json.loads(host.run("card", "--json").stdout)
    blank = {"LIFEBOAT_CONFIG": "/nowhere"}
    words = ("card", "--check-secret", told["fingerprint"], "--platform", "cad-test")
    assert "Right" in host.run(*words, **blank).stdout
    wrong = host.run(*words, ok=4, LIFEBOAT_VAULT_PASSWORD="vault-" + host.canary + " ", **blank)
    assert "WRONG" in wrong.stderr
    assert host.run("card", "--check-secret", told["fingerprint"].upper()).stdout
    no_platform = host.run("card", "--check-secret", "0000", ok=3, **blank)
    assert "/nowhere" in no_platform.stderr


def test_a_bucket_that_is_away_is_told_on_it_and_stops_it_not(host) -> None:
    host.write_yaml(endpoint="http://127.0.0.1:9", sections=CARD)
    done = host.run("card")
    assert "does not answer" in done.stdout and "does not answer" in done.stderr
    assert "lifeboat recover server" in done.stdout


def test_a_secret_in_the_settings_is_refused_and_not_printed(host) -> None:
    host.write_yaml(sections=CARD.replace("A Person", f"vault-{host.canary}"[:40]))
    refused = host.run("card", ok=3)
    assert "it would show LIFEBOAT_VAULT_PASSWORD" in refused.stderr
    assert refused.stdout == ""


def test_without_the_password_there_is_no_card_for_its_fingerprint_would_be_wrong(host) -> None:
    assert "LIFEBOAT_VAULT_PASSWORD" in os.environ
    refused = host.run("card", ok=3, LIFEBOAT_VAULT_PASSWORD="")
    assert "LIFEBOAT_VAULT_PASSWORD" in refused.stderr
