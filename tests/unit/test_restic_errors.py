"""What restic says is told apart by its words where its exit code does not."""

from __future__ import annotations

import pytest

from lifeboat.core.errors import VerificationFailed
from lifeboat.tools.restic import WrongPassword
from lifeboat.tools.restic.errors import DamagedKey, error_of


@pytest.mark.parametrize("exit_code", [1, 12])
def test_a_wrong_password_is_known_without_its_exit_code_too(exit_code: int) -> None:
    """Restic 0.17.0 ends with 1, later ones with 12."""
    error = error_of(exit_code, "Fatal: wrong password or no key found", "Opening it")
    assert isinstance(error, WrongPassword) and "LIFEBOAT_VAULT_PASSWORD" in error.hint


def test_a_damaged_key_is_a_damage_and_says_what_to_move() -> None:
    error = error_of(1, "LoadRaw(<key/0123456789>): invalid data returned", "Opening it")
    assert isinstance(error, DamagedKey) and isinstance(error, VerificationFailed)
    assert "keys/" in error.hint
