"""The bootstrap card: all that a blank machine needs, on one page, and no secret."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from datetime import datetime, timezone

import pytest
from pydantic import ValidationError

from lifeboat.core.card import WIDTH, Card, CardPoint, Contact
from lifeboat.core.errors import PermanentError
from lifeboat.core.points import Asset
from lifeboat.core.secrecy import fingerprint, without_credentials
from lifeboat.tools import card_pdf

NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)


def a_card(**changes: object) -> Card:
    told = {
        "platform": "cad-ai",
        "environment": "production",
        "printed_at": NOW,
        "bucket": "cad-backups",
        "endpoint": "https://s3.example.test",
        "region": "eu-central-1",
        "prefix": "platforms/cad",
        "into": "/srv/cad ai",
        "programs": ("PostgreSQL 16", "Docker with its compose plugin"),
        "lifeboat_repository": "https://git.example.test/lifeboat.git",
        "lifeboat_version": "0.1.0",
        "secrets": ("LIFEBOAT_VAULT_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        "fingerprint": "7f3a",
        "points": tuple(
            CardPoint(asset=asset, point=f"{asset}-20260131T000002Z", verified_at=NOW)
            for asset in Asset
        ),
        "needed_bytes": 41_300_000_000,
        "contacts": (
            Contact(role="DevOps Lead (primary)", name="Zoë Łukasz", phone="+1-555-0101"),
            Contact(role="CTO", phone="+1-555-0201"),
        ),
    }
    return Card(**told | changes)


def test_the_text_has_all_that_is_needed_and_fits_a_terminal() -> None:
    text = a_card().text()
    assert max(map(len, text.splitlines())) <= WIDTH
    for needed in (
        "cad-ai (production)",
        "printed 2026-01-31 03:15 UTC",
        "DevOps Lead (primary), +1-555-0101",
        "41.3 GB free",
        "PostgreSQL 16",
        "git clone https://git.example.test/lifeboat.git lifeboat",
        "lifeboat card --check-secret 7f3a --platform cad-ai",
        "fingerprint of LIFEBOAT_VAULT_PASSWORD: 7f3a",
        "database-20260131T000002Z    restored and verified 2026-01-31 03:15 UTC",
        "kept at    ____",
        "CTO                              +1-555-0201",
    ):
        assert needed in text


def typed(text: str, begin: str) -> list[str]:
    """The words of a command, as a shell takes them from the card."""
    lines = text[text.index(begin) :].splitlines()
    command = []
    for line in lines:
        command.append(line.strip().removesuffix("\\"))
        if not line.endswith("\\"):
            break
    return shlex.split(" ".join(command))


def test_the_one_command_can_be_typed_as_it_stands() -> None:
    assert typed(a_card().text(), "lifeboat recover server") == [
        *("lifeboat", "recover", "server", "--bucket", "cad-backups"),
        *("--endpoint", "https://s3.example.test", "--region", "eu-central-1"),
        *("--prefix", "platforms/cad", "--into", "/srv/cad ai"),
    ]
    amazon = a_card(endpoint="", prefix="", into="/srv/cad").text()
    assert typed(amazon, "lifeboat recover server") == [
        *("lifeboat", "recover", "server", "--bucket", "cad-backups"),
        *("--region", "eu-central-1", "--into", "/srv/cad"),
    ]
    assert "endpoint  Amazon S3" in amazon


@pytest.mark.skipif(not shutil.which("bash"), reason="the loop is of bash")
def test_the_loop_that_asks_for_the_secrets_works_as_it_stands() -> None:
    names = (*a_card().secrets, "LIFEBOAT_DATABASE_PASSWORD", "LIFEBOAT_CHECK_PASSWORD")
    [step] = [s for s in a_card(secrets=names).steps if "secrets" in s.title]
    script = "\n".join((*step.types[:-1], "env"))
    values = [f"value {number} \\ of it" for number in range(len(names))]
    done = subprocess.run(
        ["bash", "-c", script], input="\n".join(values) + "\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, value in zip(names, values, strict=True):
        assert f"{name}={value}" in done.stdout.splitlines()


def test_what_is_missing_is_told_to_who_prints_it() -> None:
    assert a_card().gaps == ()
    points = (CardPoint(asset=Asset.DATABASE, point="database-x", verified_at=None),)
    bare = a_card(lifeboat_repository="", contacts=(), points=points)
    told = "\n".join(bare.gaps)
    for gap in (
        "card.lifeboat_repository",
        "card.contacts",
        "database-x was never verified",
        "no point of config",
    ):
        assert gap in told
    text = bare.text()
    assert "NEVER VERIFIED" in text
    assert "git clone '<repository of Lifeboat>' lifeboat" in text
    away = a_card(points=(), points_trouble="s3.example.test does not answer.", needed_bytes=None)
    assert [gap for gap in away.gaps if "does not answer" in gap] == list(away.gaps)
    assert "does not answer" in away.text()


@pytest.mark.parametrize(
    "phone",
    ["+1-555-0101", "112", "+49 (0)30 123456", "1-800-555-0142 x77", "030.1234", "+1 555 1 ext. 7"],
)
def test_a_phone_number_can_be_dialled(phone: str) -> None:
    assert Contact(role="CTO", phone=phone).phone == phone


@pytest.mark.parametrize(
    "phone", ["1-800-XXX-XXXX", "", "12", "ask Bob", "+", "555-01O1", "1" * 50]
)
def test_what_is_no_phone_number_is_refused_before_it_is_printed(phone: str) -> None:
    with pytest.raises(ValidationError):
        Contact(role="Cloud Provider Support", phone=phone)


def test_the_right_secret_is_known_by_it_and_every_other_is_not() -> None:
    right = fingerprint("correct horse", platform="cad-ai")
    assert re.fullmatch("[0-9a-f]{4}", right)
    assert fingerprint("correct horse ", platform="cad-ai") != right
    assert fingerprint("correct horse", platform="cad-test") != right


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://token@host/x.git", "https://host/x.git"),
        ("https://me:p%40ss@host:8443/x.git", "https://host:8443/x.git"),
        ("ssh://git@host/x.git", "ssh://host/x.git"),
        ("git@host:x.git", "git@host:x.git"),
        ("https://host/x.git", "https://host/x.git"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_who_opens_it(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


# --- the page -------------------------------------------------------------------------------


def words_of(pdf: bytes) -> str:
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext (poppler-utils) is not installed")
    done = subprocess.run(["pdftotext", "-layout", "-", "-"], input=pdf, capture_output=True)
    return done.stdout.decode().replace("\u00a0", " ")


def pages_of(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


MANY = tuple(
    Contact(role=f"Somebody of importance {n}", name="A Rather Long Name", phone=f"+1-555-01{n:02}")
    for n in range(20)
)
CARDS = {
    "plain": {},
    "bare": {"contacts": (), "points": (), "points_trouble": "no answer " * 20, "endpoint": ""},
    "many contacts": {"contacts": MANY},
    "long names": {
        "platform": "c" * 63,
        "into": "/srv/" + "very-long-name/" * 7,
        "lifeboat_repository": "https://git.example.test/" + "group/" * 12 + "lifeboat.git",
        "prefix": "p" * 120,
    },
}


@pytest.mark.parametrize("paper", ["a4", "letter"])
@pytest.mark.parametrize("name", CARDS)
def test_it_is_always_one_page(name: str, paper) -> None:
    pdf = card_pdf.render(a_card(**CARDS[name]), paper=paper)
    assert pdf.startswith(b"%PDF-")
    assert pages_of(pdf) == 1


def test_the_page_says_what_the_text_says() -> None:
    card = a_card()
    words = words_of(card_pdf.render(card))
    for line in (*card.command, card.check_command, *(c.phone for c in card.contacts)):
        assert line.strip() in words
    for word in ("Łukasz", "7f3a", "database-20260131T000002Z", "kept at ____"):
        assert word in words


def test_what_no_page_can_hold_is_refused() -> None:
    with pytest.raises(PermanentError, match="does not fit"):
        card_pdf.render(a_card(programs=("a program " * 2000,)))


def test_the_same_card_is_the_same_file() -> None:
    assert card_pdf.render(a_card()) == card_pdf.render(a_card())
