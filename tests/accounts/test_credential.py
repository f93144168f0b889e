"""The encryption of Azure's key."""

from __future__ import annotations

from llmgateway.accounts.credential import CredentialCipher


def test_is_readable_with_the_same_secret():
    """Two hosts with the same secret can decrypt each other's credentials."""
    stored = CredentialCipher("secret").encrypt("azure-key")

    assert "azure-key" == CredentialCipher("secret").decrypt(stored)


def test_is_unreadable_with_another_secret():
    """With another secret the result is None, not garbage."""
    stored = CredentialCipher("secret").encrypt("azure-key")

    assert CredentialCipher("Secret").decrypt(stored) is None
    assert b"azure-key" not in stored


def test_a_damaged_one_is_unreadable():
    """A token that was changed on disk is refused."""
    cipher = CredentialCipher("secret")
    stored = cipher.encrypt("azure-key")

    assert cipher.decrypt(stored[:-1] + bytes([stored[-1] ^ 1])) is None
    assert cipher.decrypt(b"") is None
