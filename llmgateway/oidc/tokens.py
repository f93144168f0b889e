"""Checks ID tokens (OpenID Connect Core 1.0 section 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..clock import Clock

if TYPE_CHECKING:
    from joserfc.jwk import Key

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Never ``none``, and none with a shared secret: a key of the provider that is public must not verify such a one."""

SKEW_SECONDS = 60
"""By how much the clocks of the provider and of this host may differ."""

MOST_CHARACTERS = 200_000
"""Of a token. Those of people with hundreds of groups have ten thousand."""

LONGEST_SUBJECT = 255
"""OpenID Connect Core 1.0 section 2."""


class BadToken(Exception):
    """The ID token is not valid. The message says why, and contains nothing of the token."""


class UnknownKey(Exception):
    """The token is signed with a key that is not known here; perhaps it is new."""


def usable_keys(document: Mapping[str, Any]) -> Sequence[Key]:
    """Return the public keys for signatures in a JWK set; others are left out (RFC 7517 section 5)."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    found: list[Key] = []
    for each in document.get("keys") or ():
        if not isinstance(each, dict) or each.get("kty") not in ("RSA", "EC", "OKP") or each.get("use") == "enc":
            continue
        try:
            found.append(import_key({name: value for name, value in each.items() if name != "alg"}))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return found


class IdTokens:
    """Checks the ID tokens of one provider with the keys that it has at present. Thread-safe."""

    def __init__(self, keys: Sequence[Key], *, issuer: str, client_id: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._client_id = client_id
        self._clock = clock

    def check(self, answer: Mapping[str, Any], *, nonce: str | None) -> Mapping[str, Any]:
        """Return the claims of the ID token in the *answer* of the token endpoint.

        Args:
            nonce: What the authorization request contained; None for an answer to a refresh token.

        Raises:
            BadToken: it is not valid.
            UnknownKey: see there.
        """
        from authlib.oidc.core import CodeIDToken
        from joserfc.errors import ExpiredTokenError, JoseError

        text = answer.get("id_token")
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            raise BadToken("there is no ID token. Does the scope contain openid?")
        header, payload = self._verified(text)
        token = CodeIDToken(
            payload,
            header,
            {
                "iss": {"essential": True, "value": self._issuer},
                "aud": {"essential": True, "value": self._client_id},
                "sub": {"essential": True},
            },
            {"client_id": self._client_id, "nonce": nonce, "access_token": answer.get("access_token")},
        )
        try:
            token.validate(now=int(self._clock()), leeway=SKEW_SECONDS)
        except ExpiredTokenError:
            raise BadToken("it has expired. Are the clocks of both servers right?") from None
        except JoseError as error:
            # "Invalid claim: 'aud'" and the like; never the value.
            raise BadToken(f"its claim is missing or wrong: {getattr(error, 'claim', None) or error.error}.") from None
        except (TypeError, ValueError, AttributeError):
            raise BadToken("a claim has a wrong type.") from None
        if len(token["sub"]) > LONGEST_SUBJECT:
            raise BadToken("its claim is missing or wrong: sub.")
        return {**token}

    def _verified(self, text: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
        from joserfc import jws, jwt
        from joserfc.errors import JoseError

        try:
            header = jws.extract_compact(text.encode()).headers()
        except (JoseError, ValueError, TypeError):
            raise BadToken("it cannot be read.") from None
        if header.get("alg") not in ALGORITHMS:
            raise BadToken("its algorithm is not one of those that are allowed.")
        key_id = header.get("kid")
        named = [key for key in self._keys if key_id is None or key.kid == key_id]
        if not named:
            raise UnknownKey
        for key in named:
            try:
                token = jwt.decode(text, key, algorithms=[header["alg"]])
            except (JoseError, ValueError, TypeError):
                continue
            return header, token.claims
        if key_id is None:
            raise UnknownKey
        raise BadToken("its signature is wrong.")
