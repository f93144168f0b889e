"""Encrypts Azure's key before it is stored."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

# The salt is fixed: all hosts that share a store must derive the same key from the same secret.
# scrypt's cost (n=2**14: 16 MiB, about 50 ms, once at start; RFC 7914 section 2) protects operators
# whose ADMIN_KEY is easy to guess.
_SALT = b"llmgateway credential v1"


class CredentialCipher:
    """Encrypts and decrypts Azure's key with a key derived from *secret*. Thread-safe."""

    def __init__(self, secret: str) -> None:
        derived = hashlib.scrypt(secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32)
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def encrypt(self, credential: str) -> bytes:
        return self._fernet.encrypt(credential.encode())

    def decrypt(self, token: bytes) -> str | None:
        """Return the credential, or None if *token* was encrypted with another secret."""
        try:
            return self._fernet.decrypt(token).decode()
        except InvalidToken:
            return None
