"""One OpenID Connect provider: its addresses, its keys, the exchange of codes, and refresh tokens.

The flow is the authorization code flow with PKCE (OpenID Connect Core 1.0 section 3.1, RFC 7636, RFC 9700). What the
provider sends is believed only as far as it is signed with one of its keys, for us, and in time.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from ..clock import Clock, Timer
from ..errors import GrantEnded, IdentityProviderUnavailable, SignInRefused
from ..records import Account
from .connection import Connection, Unreachable, Unreadable
from .settings import OFFLINE, SCOPES, ProviderSettings
from .tokens import BadToken, IdTokens, UnknownKey, usable_keys

log = logging.getLogger(__name__)

DISCOVERY_SECONDS = 3600.0
"""How long the provider's addresses and keys are used before they are read again."""

NEW_KEYS_SECONDS = 10.0
"""For an unknown key, the keys are read again; not more often than this, because anybody can send such a token."""

REST_SECONDS = 5.0
"""After a failed connection nobody waits for the provider for this time."""

CALLS = 6
"""Calls at once, of each process: a slow provider must not take all threads."""

WAIT_SECONDS = 1.0
"""How long a call waits for one of these."""

_WELL_KNOWN = "/.well-known/openid-configuration"
_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class SignInStart(NamedTuple):
    """The beginning of a sign-in. All but the address stay with the browser that has begun it."""

    url: str
    """The provider's page."""
    state: str
    nonce: str
    verifier: str


class _Provider(NamedTuple):
    addresses: Mapping[str, Any]
    tokens: IdTokens
    read_at: float

    @property
    def auth_method(self) -> str:
        """How we show who we are: with HTTP's Basic, unless the provider says that it does not know that."""
        methods = self.addresses.get("token_endpoint_auth_methods_supported")
        in_body = isinstance(methods, list) and "client_secret_basic" not in methods
        return "client_secret_post" if in_body else "client_secret_basic"


class OpenIDProvider:
    """The client of one provider. Thread-safe. Nothing is sent before the first call.

    Every method that asks the provider raises :class:`IdentityProviderUnavailable` if there is no usable answer, within
    some seconds. Its message is for the person who signs in; the log has what an operator needs.
    """

    def __init__(self, settings: ProviderSettings, *, clock: Clock, timer: Timer = time.monotonic) -> None:
        self.issuer = settings.issuer
        self._settings = settings
        self._clock = clock
        self._timer = timer
        self._calls = threading.BoundedSemaphore(CALLS)
        self._reading = threading.Lock()
        self._provider: _Provider | None = None
        self._keys_read_at = -NEW_KEYS_SECONDS
        self._rests_until = 0.0

    def begin(self, redirect_uri: str) -> SignInStart:
        """Return where the browser has to go, and what it has to bring back.

        Args:
            redirect_uri: Where the provider sends the browser then.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._calling() as connection:
            addresses = self._known(connection).addresses
            url, _ = connection.client.create_authorization_url(
                addresses["authorization_endpoint"],
                state=state,
                code_verifier=verifier,
                nonce=nonce,
                redirect_uri=redirect_uri,
                scope=" ".join(self._scopes(addresses)),
            )
        return SignInStart(url, state, nonce, verifier)

    def complete(self, code: str, *, redirect_uri: str, nonce: str, verifier: str, wanted: tuple[str, ...]) -> Account:
        """Exchange the *code* that the browser has brought, and return who has signed in.

        Args:
            wanted: Claims without which the provider is asked a second time: some have them only at ``userinfo``.

        Raises:
            SignInRefused: the provider refuses the code, or what it sends is not valid.
        """
        with self._calling() as connection:
            known = self._known(connection)
            try:
                answer = connection.exchange(
                    known.addresses["token_endpoint"],
                    auth_method=known.auth_method,
                    code=code,
                    redirect_uri=redirect_uri,
                    code_verifier=verifier,
                )
            except GrantEnded:
                raise SignInRefused("This sign-in was used already, or has expired. Sign in again.") from None
            claims = self._claims(connection, known, answer, nonce=nonce, wanted=wanted)
        return Account(self.issuer, claims["sub"], claims, answer.get("refresh_token"))

    def refresh(self, token: str, *, subject: str, wanted: tuple[str, ...]) -> Account:
        """Ask whether the account *subject* still exists, and return what is new of it.

        Args:
            wanted: As for :meth:`complete`.

        Returns:
            Without claims if the provider sends none; without a refresh token if the present one stays.

        Raises:
            GrantEnded: the provider says that the refresh token is not valid any more.
        """
        with self._calling() as connection:
            known = self._known(connection)
            answer = connection.renew(known.addresses["token_endpoint"], token, auth_method=known.auth_method)
            claims: Mapping[str, Any] = {}
            if isinstance(answer.get("id_token"), str):
                claims = self._claims(connection, known, answer, nonce=None, wanted=wanted)
                if claims["sub"] != subject:
                    raise IdentityProviderUnavailable("The identity provider has answered about somebody else.")
        new = answer.get("refresh_token")
        return Account(self.issuer, subject, claims, new if isinstance(new, str) and new != token else None)

    def end_session_url(self, return_to: str, *, hint: str | None) -> str | None:
        """Return the provider's page that ends its own session, or None if it is not known to have one.

        It gets no ID token: one would have to be kept (OpenID Connect RP-Initiated Logout 1.0 section 2).
        """
        address = None if self._provider is None else self._provider.addresses.get("end_session_endpoint")
        if not isinstance(address, str) or not self._is_safe(address):
            return None
        query = {"client_id": self._settings.client_id, "post_logout_redirect_uri": return_to}
        separator = "&" if urlsplit(address).query else "?"
        return address + separator + urlencode(query | ({} if hint is None else {"logout_hint": hint}))

    @contextmanager
    def _calling(self) -> Iterator[Connection]:
        """Yield a connection for one call; translate what goes wrong with it."""
        if self._timer() < self._rests_until:
            raise IdentityProviderUnavailable("The identity provider does not answer.", retry_after=int(REST_SECONDS))
        if not self._calls.acquire(timeout=WAIT_SECONDS):
            raise IdentityProviderUnavailable("Too many people sign in at the same moment.", retry_after=5)
        try:
            with Connection.open(self._settings.client_id, self._settings.client_secret, self._timer) as connection:
                yield connection
        except Unreachable as error:
            log.warning("The identity provider %s cannot be used: %s.", self.issuer, error)
            if error.rests:
                self._rests_until = self._timer() + REST_SECONDS
            raise IdentityProviderUnavailable(
                "The identity provider does not answer.", retry_after=int(REST_SECONDS)
            ) from error
        except Unreadable as error:
            log.warning("The identity provider %s cannot be used: %s.", self.issuer, error)
            raise IdentityProviderUnavailable(
                "The identity provider does not answer as it should. Tell the admin of this gateway."
            ) from error
        except BadToken as error:
            log.warning("The identity provider %s has sent an ID token that is not valid: %s", self.issuer, error)
            raise SignInRefused(f"What the identity provider has sent is not valid: {error}") from error
        finally:
            self._calls.release()

    def _known(self, connection: Connection) -> _Provider:
        """Return the addresses and keys. If they cannot be read again, the old ones are used."""
        known = self._provider
        if known is not None and self._timer() - known.read_at < DISCOVERY_SECONDS:
            return known
        with self._reading:
            known = self._provider
            if known is not None and self._timer() - known.read_at < DISCOVERY_SECONDS:
                return known
            try:
                known = self._read(connection)
            except (Unreachable, Unreadable):
                if known is None:
                    raise
                known = known._replace(read_at=self._timer() - DISCOVERY_SECONDS + REST_SECONDS)
            self._provider = known
            return known

    def _read(self, connection: Connection) -> _Provider:
        addresses = connection.get(self.issuer.rstrip("/") + _WELL_KNOWN)
        if addresses.get("issuer") != self.issuer:
            said = str(addresses.get("issuer"))[:200]
            raise Unreadable(f"it calls itself {said!a}: OIDC_ISSUER must be exactly that, if it is the right one")
        wrong = [name for name in _NEEDED if not self._is_safe(addresses.get(name))]
        if wrong:
            raise Unreadable(f"these of its addresses are missing, or not https: {', '.join(wrong)}")
        return _Provider(addresses, self._read_keys(connection, addresses), self._timer())

    def _read_keys(self, connection: Connection, addresses: Mapping[str, Any]) -> IdTokens:
        keys = usable_keys(connection.get(addresses["jwks_uri"]))
        return IdTokens(keys, issuer=self.issuer, client_id=self._settings.client_id, clock=self._clock)

    def _claims(
        self,
        connection: Connection,
        known: _Provider,
        answer: Mapping[str, Any],
        *,
        nonce: str | None,
        wanted: tuple[str, ...],
    ) -> Mapping[str, Any]:
        claims = self._signed_claims(connection, known, answer, nonce=nonce)
        if all(_has(claims, each) for each in wanted):
            return claims
        # What is signed is never replaced.
        return {**self._userinfo(connection, known, answer, claims["sub"]), **claims}

    def _signed_claims(
        self, connection: Connection, known: _Provider, answer: Mapping[str, Any], *, nonce: str | None
    ) -> Mapping[str, Any]:
        """Return the claims of the ID token, checked. Providers change their keys now and then."""
        try:
            return known.tokens.check(answer, nonce=nonce)
        except UnknownKey:
            tokens = self._newer_keys(connection, known)
        try:
            return tokens.check(answer, nonce=nonce)
        except UnknownKey as error:
            raise BadToken("it is signed with a key that the provider does not have.") from error

    def _newer_keys(self, connection: Connection, known: _Provider) -> IdTokens:
        with self._reading:
            present = self._provider
            if present is not None and present.tokens is not known.tokens:
                return present.tokens
            if self._timer() - self._keys_read_at < NEW_KEYS_SECONDS:
                return known.tokens
            self._keys_read_at = self._timer()
            tokens = self._read_keys(connection, known.addresses)
            self._provider = known._replace(tokens=tokens)
            return tokens

    def _userinfo(
        self, connection: Connection, known: _Provider, answer: Mapping[str, Any], subject: str
    ) -> Mapping[str, Any]:
        address, token = known.addresses.get("userinfo_endpoint"), answer.get("access_token")
        if not self._is_safe(address) or not isinstance(token, str):
            return {}
        said = connection.get(str(address), bearer=token)
        # OpenID Connect Core 1.0 section 5.3.2: otherwise it can be about somebody else.
        return said if said.get("sub") == subject else {}

    def _scopes(self, addresses: Mapping[str, Any]) -> tuple[str, ...]:
        if self._settings.scopes is not None:
            return self._settings.scopes
        supported = addresses.get("scopes_supported")
        return (*SCOPES, OFFLINE) if isinstance(supported, list) and OFFLINE in supported else SCOPES

    def _is_safe(self, address: object) -> bool:
        """Whether this is an address, and not less safe than the issuer's."""
        schemes = ("https://",) if self.issuer.startswith("https://") else ("https://", "http://")
        return isinstance(address, str) and address.startswith(schemes)


def _has(claims: Mapping[str, Any], path: str) -> bool:
    return path in claims or path.partition(".")[0] in claims
