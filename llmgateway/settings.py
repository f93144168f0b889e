"""The settings of the gateway. They are read from the environment once, and checked together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from . import settings_parsers as parsers
from .azure.endpoint import NO_BASE_URL, Endpoint
from .azure.identity import KINDS, Identity
from .env_file import ENV_FILE, with_env_file
from .errors import ConfigurationError
from .oidc.settings import ProviderSettings, missing_extra
from .settings_names import is_set_by_kubernetes, unknown_settings

MISSING_BASE_URL = (
    "LLM_BASE_URL is missing. Set it to the address of your resource, such as "
    "https://NAME.openai.azure.com/openai/v1, or set the address while the gateway runs: llmgateway settings set "
    "--base-url ADDRESS, or the dashboard."
)

KEY_HEADERS = ("api-key", "Authorization", "Ocp-Apim-Subscription-Key")

SHORT_ADMIN_KEY = 16
"""Characters. A shorter key can be guessed, so its owner has to wait like those who guess."""


def _text(text: str) -> str:
    return text


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return value

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() raises an error with a message of its own for thousands of digits.
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError("must be one of " + ", ".join(choices))

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _setting(
    variable: str,
    meaning: str,
    default: Any = MISSING,
    *,
    parse: Callable[[str], Any] = _text,
    secret: bool = False,
    as_it_is: bool = False,
    reloads: bool = False,
    shown: str | None = None,
) -> Any:
    """Declare a field that is read from *variable*.

    Args:
        meaning: Description of the setting in docs/settings.md.
        default: MISSING if the variable is required.
        as_it_is: Do not strip blanks before *parse*. Other values are stripped, because tools that write the
            environment may add a line break.
        reloads: Whether a new value can be put into force while the gateway runs, see :meth:`Settings.reloaded`.
        shown: The default in docs/settings.md, if ``str()`` of the default is not suitable.
    """
    metadata = {
        "variable": variable,
        "meaning": meaning,
        "parse": parse,
        "secret": secret,
        "as_it_is": as_it_is,
        "reloads": reloads,
        "shown": shown,
    }
    return field(default=default, repr=not secret, metadata=metadata)


def default_processes() -> int:
    """Return one process per two processors, because requests wait for Azure most of the time."""
    return max(1, (os.cpu_count() or 1) // 2)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, with types. ``repr()`` shows no secrets."""

    admin_key: str = _setting(
        "ADMIN_KEY",
        "Key of the admin API, sent as the header `AdminKey`. The gateway warns if it is shorter than 16 characters: "
        "such a key also has to wait after [too many wrong ones](security.md#who-may-do-what).",
        parse=parsers.admin_key,
        secret=True,
        as_it_is=True,
        reloads=True,
    )
    base_url: str | None = _setting(
        "LLM_BASE_URL",
        "Address of Azure, up to `/chat/completions`, in any form in which Azure shows it: "
        "`https://NAME.openai.azure.com/openai/v1`, `…/openai/deployments/NAME`, `…/deployments/{model}`, "
        "an API Management URL. If it is missing, "
        "[the one that an admin has stored](admin.md#azures-address-and-key) is used; `none` means that there is none, "
        "and that all models have [deployments of their own](admin.md#models-and-their-deployments).",
        None,
        shown="the stored one",
    )
    api_key: str | None = _setting(
        "LLM_API_KEY",
        "Azure's key. A key that was set through `/admin/setllmkey` wins over this one.",
        None,
        parse=parsers.header_value,
        secret=True,
        as_it_is=True,
    )
    api_version: str | None = _setting(
        "LLM_API_VERSION", "`api-version` for URLs that name a deployment.", None, shown="the stored one"
    )
    key_header: str | None = _setting(
        "LLM_KEY_HEADER",
        "Header that carries Azure's key: `api-key`, `Authorization` (as Bearer) or `Ocp-Apim-Subscription-Key`.",
        None,
        parse=_one_of(*KEY_HEADERS),
        shown="the stored one, or `api-key`",
    )
    identity_kind: str | None = _setting(
        "LLM_IDENTITY",
        "Send tokens of Microsoft Entra ID instead of a key: `managed`, `workload` or `secret` says with which "
        "identity, `auto` takes what the environment has. See "
        "[operations](operations.md#without-a-key-microsoft-entra-id).",
        None,
        parse=_one_of(*KINDS),
        shown="a key",
    )
    identity_client_id: str | None = _setting(
        "LLM_IDENTITY_CLIENT_ID",
        "Client id of the identity; for `managed` that of the identity that a user has assigned.",
        None,
        shown="`AZURE_CLIENT_ID`; with `managed` the identity of the system",
    )
    identity_scope: str | None = _setting(
        "LLM_IDENTITY_SCOPE",
        "Scope of the tokens.",
        None,
        parse=parsers.scope,
        shown="`https://cognitiveservices.azure.com/.default`, or that of the cloud of `LLM_BASE_URL`",
    )
    azure_tenant_id: str | None = _setting("AZURE_TENANT_ID", "Tenant, with `LLM_IDENTITY`.", None)
    azure_client_id: str | None = _setting(
        "AZURE_CLIENT_ID", "Client id, if there is no `LLM_IDENTITY_CLIENT_ID`.", None
    )
    azure_client_secret: str | None = _setting(
        "AZURE_CLIENT_SECRET", "Secret of the client, with `LLM_IDENTITY`.", None, secret=True
    )
    azure_token_file: str | None = _setting(
        "AZURE_FEDERATED_TOKEN_FILE", "File with the token of the platform. Workload identity sets it.", None
    )
    azure_authority_host: str | None = _setting(
        "AZURE_AUTHORITY_HOST",
        "What issues tokens, with `LLM_IDENTITY`.",
        None,
        shown="`https://login.microsoftonline.com`, or that of the cloud of `LLM_BASE_URL`",
    )
    mongo_host: str | None = _setting(
        "MONGOHOST",
        "MongoDB, `host[:port]`: keys, prompt and usage log.",
        None,
        parse=parsers.host_and_port,
        shown="embedded SQLite",
    )
    mongo_user: str | None = _setting("MONGOUSER", "User for MongoDB, not escaped.", None, as_it_is=True)
    mongo_password: str | None = _setting(
        "MONGOPASSWORD", "Password for MongoDB, not escaped.", None, secret=True, as_it_is=True
    )
    mongo_full_url: str | None = _setting(
        "MONGO_URL",
        "Full MongoDB URL (TLS, replica sets, Cosmos DB); wins over the three above.",
        None,
        parse=parsers.mongo_url,
        secret=True,
    )
    redis_host: str | None = _setting(
        "REDISHOST",
        "Redis: looks up keys and counts limits.",
        None,
        parse=parsers.host_alone,
        shown="the durable store; this host counts limits",
    )
    redis_port: int = _setting("REDISPORT", "Port of Redis.", 6379, parse=_integer(1, 65535))
    redis_password: str | None = _setting(
        "REDISPASSWORD", "Password for Redis, as it is.", None, secret=True, as_it_is=True
    )
    redis_full_url: str | None = _setting(
        "REDIS_URL",
        "Full Redis URL (TLS, Sentinel, cluster, user, database); wins over the three above.",
        None,
        parse=parsers.redis_url,
        secret=True,
    )
    secret_key: str | None = _setting(
        "SECRET_KEY",
        "Encrypts the stored Azure key and signs entries in Redis; must be the same on all hosts.",
        None,
        parse=parsers.without_blanks_around,
        secret=True,
        as_it_is=True,
        shown="derived from `ADMIN_KEY`",
    )
    on_disconnect: str = _setting(
        "LLM_ON_DISCONNECT",
        "When a client leaves: `auto` reads an answer on for `LLMGATEWAY_READ_ON_SECONDS` if its model thinks unseen, "
        "because only its end tells the count, and stops any other at once; `close` stops each request at Azure at "
        "once; `drain` reads each answer on for `LLMGATEWAY_DISCONNECT_DRAIN_SECONDS`. What is booked without a count: "
        "docs/operations.md.",
        "auto",
        parse=_one_of("auto", "close", "drain"),
    )
    instance: Path = _setting(  # noqa: RUF009
        "LLMGATEWAY_INSTANCE",
        "Folder for everything the program writes.",
        Path("instance"),
        parse=Path,
        shown="`./instance`",
    )
    host: str = _setting("LLMGATEWAY_HOST", "Address to listen on.", "127.0.0.1")
    port: int = _setting("LLMGATEWAY_PORT", "Port to listen on; 0 takes a free one.", 8080, parse=_integer(0, 65535))
    processes: int = _setting(
        "LLMGATEWAY_PROCESSES",
        "Serving processes.",
        default_processes(),
        parse=_integer(1, 256),
        shown="one per two processors",
    )
    threads: int = _setting(
        "LLMGATEWAY_THREADS", "Threads of each process; each request at Azure holds one.", 128, parse=_integer(8, 4096)
    )
    models: tuple[str, ...] = _setting(
        "LLMGATEWAY_MODELS",
        "Models on offer, separated by commas; others get 404. Needed for `GET /v1/models` "
        "where the URL does not name the deployment.",
        (),
        parse=_names,
        shown="all that Azure has",
        reloads=True,
    )
    azure_events: str = _setting(
        "LLMGATEWAY_AZURE_EVENTS",
        "What happens under `/v1` to events of a stream that OpenAI would not send: `withhold` makes the stream one of "
        "OpenAI's, `pass` passes every event on as Azure sent it.",
        "withhold",
        parse=_one_of("withhold", "pass"),
    )
    unknown_price: str = _setting(
        "LLMGATEWAY_UNKNOWN_PRICE",
        "Whether somebody whose key, person, group or organisation has a budget in dollars may use a model without a "
        "known price: `allow` or `refuse`.",
        "allow",
        parse=_one_of("allow", "refuse"),
    )
    connect_timeout: float = _setting(
        "LLMGATEWAY_CONNECT_TIMEOUT", "Seconds to connect to Azure.", 5.0, parse=_number(0.1, 300), reloads=True
    )
    first_byte_timeout: float = _setting(
        "LLMGATEWAY_FIRST_BYTE_TIMEOUT",
        "Seconds until Azure begins to answer; reasoning models think for minutes.",
        300.0,
        parse=_number(0.1, 3600),
        reloads=True,
    )
    failover_seconds: float = _setting(
        "LLMGATEWAY_FAILOVER_SECONDS",
        "Seconds after the arrival of a request in which other deployments of its model may be asked if one cannot "
        "answer. While others could answer, one may take half of what is left of them to begin its answer.",
        600.0,
        parse=_number(1, 3600),
    )
    between_bytes_timeout: float = _setting(
        "LLMGATEWAY_BETWEEN_BYTES_TIMEOUT",
        "Seconds of silence in the middle of an answer.",
        120.0,
        parse=_number(0.1, 3600),
        reloads=True,
    )
    client_timeout: float = _setting(
        "LLMGATEWAY_CLIENT_TIMEOUT",
        "Seconds that a client may take to send a request (longer for a large one), and that it may read nothing of "
        "its answer.",
        60.0,
        parse=_number(1, 3600),
        reloads=True,
    )
    max_body_bytes: int = _setting(
        "LLMGATEWAY_MAX_BODY_BYTES",
        "Largest body of a request in bytes; a larger one gets 413.",
        32 * 1024 * 1024,
        parse=_integer(1024, 1024**3),
    )
    reconcile_bytes: int = _setting(
        "LLMGATEWAY_RECONCILE_BYTES",
        "Largest export of Azure's, in bytes after unpacking, that is [compared](admin.md#does-azures-bill-agree) "
        "on the dashboard; 100 MB take about a second. `llmgateway reconcile` takes any size.",
        256 * 1024 * 1024,
        parse=_integer(1024, 2**40),
    )
    max_body_containers: int = _setting(
        "LLMGATEWAY_MAX_BODY_CONTAINERS",
        "The most objects and arrays in the body of a request; more get 400. Twice as many names in "
        "objects and twenty times as many values are accepted, at least 400,000 and 4,000,000.",
        200_000,
        parse=_integer(1000, 10**8),
    )
    preparing_bytes: int = _setting(
        "LLMGATEWAY_PREPARING_BYTES",
        "The most bytes of bodies over 64 KiB that each process receives and checks at once; more get 503.",
        256 * 1024 * 1024,
        parse=_integer(1024, 1024**4),
    )
    preparing_bytes_per_key: int = _setting(
        "LLMGATEWAY_PREPARING_BYTES_PER_KEY",
        "The same for one key.",
        64 * 1024 * 1024,
        parse=_integer(1024, 1024**4),
    )
    key_share: float = _setting(
        "LLMGATEWAY_KEY_SHARE",
        "The part of the request slots of each process that any one key may take. When it is taken, a key gets another "
        "slot only if it holds less than its equal share. 1 switches this off, for a gateway with a single key.",
        0.75,
        parse=_number(0, 1),
    )
    end_streams_on_revoke: str = _setting(
        "LLMGATEWAY_END_STREAMS_ON_REVOKE",
        "Whether running answers end when their key is removed, blocked or replaced without overlap: `on` or `off`. "
        "An expiry date never ends one.",
        "on",
        parse=_one_of("on", "off"),
    )
    store_timeout: float = _setting(
        "LLMGATEWAY_STORE_TIMEOUT", "Seconds to wait for Redis or MongoDB.", 2.0, parse=_number(0.05, 60)
    )
    timezone: str = _setting(
        "LLMGATEWAY_TIMEZONE",
        "The time zone in which days, weeks and months begin, as a name of the IANA list. It holds until an admin sets "
        "another one with `PUT /admin/settings`; set it before the first start.",
        "UTC",
        parse=parsers.timezone,
    )
    log_days: int | None = _setting(
        "LLMGATEWAY_LOG_DAYS",
        "Number of days before today whose single usage records are kept; the sums in reports are always kept.",
        None,
        parse=_integer(1, 36500),
        shown="all",
    )
    refusal_days: int = _setting(
        "LLMGATEWAY_REFUSAL_DAYS",
        "Number of days for which [refused requests](admin.md#find-a-students-error) are kept; 0 keeps none.",
        14,
        parse=_integer(0, 3650),
    )
    most_refusals: int = _setting(
        "LLMGATEWAY_MOST_REFUSALS",
        "The most refused requests that are kept. Of more, the oldest are deleted. Each takes about 1 KB.",
        100_000,
        parse=_integer(100, 10_000_000),
    )
    drain_seconds: float = _setting(
        "LLMGATEWAY_DRAIN_SECONDS",
        "Seconds that running answers get to end at SIGTERM.",
        30.0,
        parse=_number(0, 3600),
        reloads=True,
    )
    read_on_seconds: float = _setting(
        "LLMGATEWAY_READ_ON_SECONDS",
        "With `LLM_ON_DISCONNECT=auto`: the most seconds that an abandoned answer is read on. At most an eighth of the "
        "request slots do so at once.",
        20.0,
        parse=_number(0, 3600),
    )
    disconnect_drain_seconds: float = _setting(
        "LLMGATEWAY_DISCONNECT_DRAIN_SECONDS",
        "With `LLM_ON_DISCONNECT=drain`: the most seconds spent on one abandoned answer. At most a quarter of the "
        "threads do so at once.",
        60.0,
        parse=_number(1, 3600),
    )
    trusted_proxy: str | None = _setting(
        "LLMGATEWAY_TRUSTED_PROXY",
        "Address of your proxy, whose `X-Forwarded-*` headers are believed; `*` for any (then only the proxy may be "
        "able to reach the gateway).",
        None,
        parse=parsers.proxy_address,
        shown="nobody",
        reloads=True,
    )
    cors_origins: tuple[str, ...] = _setting(
        "LLMGATEWAY_CORS_ORIGINS",
        "Origins whose pages may call the API from a browser, separated by commas: whole ones like "
        "`https://app.example.org` or `app://obsidian.md`, `null`, or `*` for all.",
        (),
        parse=parsers.origins,
        shown="none",
        reloads=True,
    )
    metrics: str = _setting(
        "LLMGATEWAY_METRICS",
        "Who may read `/metrics`: `admin` (with the admin key), `open` (anybody who reaches the port), `off` (nobody).",
        "admin",
        parse=_one_of("admin", "open", "off"),
        reloads=True,
    )
    show_shared: str = _setting(
        "LLMGATEWAY_SHOW_SHARED",
        "Whether users see how large the budgets of their group and of the organisation are, and "
        "[what is left of them](admin.md#what-is-used-and-left): `on` or `off`.",
        "off",
        parse=_one_of("on", "off"),
        reloads=True,
    )
    log_level: str = _setting(
        "LLMGATEWAY_LOG_LEVEL",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`.",
        "INFO",
        parse=_one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        reloads=True,
    )

    oidc_issuer: str | None = _setting(
        "OIDC_ISSUER",
        "[Signing in](sign-in.md) with your identity provider: its issuer, exactly as its discovery document names it, "
        "such as `https://login.microsoftonline.com/TENANT/v2.0`. Needs the extra `oidc`.",
        None,
        parse=parsers.issuer,
        shown="nobody signs in with one",
    )
    oidc_client_id: str | None = _setting(
        "OIDC_CLIENT_ID", "The identifier of this gateway at the identity provider.", None, shown="none"
    )
    oidc_client_secret: str | None = _setting(
        "OIDC_CLIENT_SECRET", "The secret of this gateway at the identity provider.", None, secret=True, shown="none"
    )
    oidc_user_claim: str = _setting(
        "OIDC_USER_CLAIM",
        "The claim with the name that keys have as `user`. `email` counts only if the provider has verified it.",
        "preferred_username",
        parse=parsers.word,
    )
    oidc_scopes: tuple[str, ...] | None = _setting(
        "OIDC_SCOPES",
        "What the provider is asked for, separated by blanks; `openid` must be among it.",
        None,
        parse=parsers.scopes,
        shown="`openid profile email`, and `offline_access` if the provider has it",
    )
    oidc_max_days: int | None = _setting(
        "OIDC_MAX_DAYS",
        "Number of days without a sign-in after which the keys of a person are blocked, if the provider gives no "
        "refresh tokens, see [people who leave](sign-in.md#people-who-leave).",
        None,
        parse=_integer(1, 3650),
        shown="never",
    )
    public_url: str | None = _setting(
        "LLMGATEWAY_PUBLIC_URL",
        "The address under which browsers reach this gateway, with the path in front of `/dashboard` if there is one. "
        "The identity provider sends them back to it.",
        None,
        parse=parsers.public_url,
        shown="what the browser asks for",
        reloads=True,
    )
    session_idle_minutes: int = _setting(
        "LLMGATEWAY_SESSION_IDLE_MINUTES",
        "Number of minutes after which somebody who does nothing on the dashboard has to sign in again.",
        60,
        parse=_integer(1, 7 * 24 * 60),
        reloads=True,
    )
    session_hours: int = _setting(
        "LLMGATEWAY_SESSION_HOURS",
        "Number of hours after which everybody has to sign in again.",
        12,
        parse=_integer(1, 31 * 24),
    )

    env_file: Path | None = _setting(  # noqa: RUF009
        ENV_FILE,
        "File with more of these variables, see [below](#a-file-of-settings). What the environment has itself wins.",
        None,
        parse=Path,
        shown="none",
    )

    unknown: tuple[str, ...] = ()
    """A sentence for each variable in the environment that looks like a setting and is none."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check all settings.

        An empty variable, or one with only blanks, counts as not set. Docker Compose passes variables that are missing
        in its own environment as empty variables. ``LLMGATEWAY_ENV_FILE`` names a file with more variables.

        Raises:
            ConfigurationError: has all problems; each message begins with the name of the variable.
        """
        environ = with_env_file(environ)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in settings_fields():
            variable = setting.metadata["variable"]
            text = environ.get(variable, "")
            if not setting.metadata["as_it_is"]:
                text = text.strip()
            if not text.strip() or is_set_by_kubernetes(variable, text):
                if setting.default is MISSING:
                    problems.append(f"{variable} is missing. {setting.metadata['meaning']}")
                continue
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                problems.append(f"{variable} {error}.")
        if values.get("base_url", NO_BASE_URL) != NO_BASE_URL:
            try:
                Endpoint.parse(values["base_url"], values.get("api_version"))
            except ValueError as error:
                problems.append(f"LLM_BASE_URL {error}.")
        # One that is wrong itself is not missing.
        wrong = {problem.partition(" ")[0] for problem in problems}
        problems += [each for each in _contradictions(values) if each.partition(" ")[0] not in wrong]
        try:
            _identity(values.get)
        except ConfigurationError as error:
            problems += error.problems
        if values.get("oidc_issuer") and (problem := missing_extra()):
            problems.append(problem)
        if problems:
            raise ConfigurationError(problems)
        return cls(**values, unknown=unknown_settings_in(environ))

    def reloaded(self, new: Settings) -> Settings:
        """Return these settings with those of *new* that can be put into force while the gateway runs."""
        values = {field.name: getattr(new, field.name) for field in settings_fields() if field.metadata["reloads"]}
        if self.secret_key is None and self.admin_key != new.admin_key:
            # What was encrypted and signed with the old key stays readable, also for processes that start later.
            values["secret_key"] = self.admin_key
        return replace(self, unknown=new.unknown, **values)

    def differing(self, other: Settings) -> list[str]:
        """Return the variables whose values differ."""
        differ = (field for field in settings_fields() if getattr(self, field.name) != getattr(other, field.name))
        return [field.metadata["variable"] for field in differ]

    def secrets(self) -> list[str]:
        """Return all values that must not appear in a log."""
        values = (getattr(self, field.name) for field in settings_fields() if field.metadata["secret"])
        return [value for value in values if value]

    def make_instance_folder(self) -> None:
        """Create the folder for all files of the gateway, if it does not exist.

        Raises:
            ConfigurationError: the folder cannot be created, or is not writable.
        """
        try:
            self.instance.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            problem = f"LLMGATEWAY_INSTANCE: the folder {self.instance.absolute()} cannot be made: {error.strerror}."
            raise ConfigurationError([problem]) from error
        self.check_instance_folder()

    def check_instance_folder(self) -> None:
        """Check that the folder can be used, without creating it.

        Raises:
            ConfigurationError: the folder, or the one in which it would be created, is not a writable folder.
        """
        folder = self.instance.absolute()
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            which = f"the folder {folder}" if existing == folder else f"the folder {folder} cannot be made: {existing}"
            raise ConfigurationError([f"LLMGATEWAY_INSTANCE: {which} is not a writable folder."])

    @property
    def endpoint(self) -> Endpoint | None:
        """The address of ``LLM_BASE_URL``; None if it is not set."""
        return None if self.base_url in (None, NO_BASE_URL) else Endpoint.parse(self.base_url, self.api_version)

    @property
    def identity(self) -> Identity | None:
        """The identity whose tokens are sent to Azure, or None if a key is."""
        return _identity(lambda name: getattr(self, name))

    @property
    def mongo_url(self) -> str | None:
        """The URL of MongoDB with user and password, or None if SQLite is used."""
        if self.mongo_full_url or not self.mongo_host:
            return self.mongo_full_url
        login = ""
        if self.mongo_user:
            login = f"{quote(self.mongo_user, safe='')}:{quote(self.mongo_password or '', safe='')}@"
        return f"mongodb://{login}{self.mongo_host}/"

    @property
    def redis_url(self) -> str | None:
        """The URL of Redis with its password, or None if Redis is not configured."""
        if self.redis_full_url or not self.redis_host:
            return self.redis_full_url
        login = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        return f"redis://{login}{self.redis_host}:{self.redis_port}/0"

    @property
    def oidc(self) -> ProviderSettings | None:
        """The identity provider that signs people in, or None."""
        if self.oidc_issuer is None or self.oidc_client_id is None or self.oidc_client_secret is None:
            return None
        return ProviderSettings(
            issuer=self.oidc_issuer,
            client_id=self.oidc_client_id,
            client_secret=self.oidc_client_secret,
            scopes=self.oidc_scopes,
        )

    def warnings(self) -> list[str]:
        """Return a warning for each setting that works but should be changed."""
        found = [*self.unknown]
        if len(self.admin_key) < SHORT_ADMIN_KEY:
            found.append(
                "ADMIN_KEY IS TOO SHORT: it can be guessed. So it has to wait, too, when too many wrong keys came from "
                f"its address. Use {SHORT_ADMIN_KEY} characters or more, for example from: "
                "openssl rand -hex 24"
            )
        if is_unencrypted(self.base_url or ""):
            found.append("LLM_BASE_URL is not https: Azure's key and everybody's conversations travel unencrypted.")
        if self.oidc_issuer and is_unencrypted(self.oidc_issuer):
            found.append("OIDC_ISSUER is not https: whoever is on the way can sign in as anybody.")
        if self.oidc_issuer and self.public_url and is_unencrypted(self.public_url):
            found.append("LLMGATEWAY_PUBLIC_URL is not https: sessions and what pages show travel unencrypted.")
        if self.identity_kind and self.api_key:
            found.append("LLM_API_KEY is not used, because LLM_IDENTITY is set: remove one of them.")
        if self.trusted_proxy == "*":
            found.append(
                "LLMGATEWAY_TRUSTED_PROXY=* believes everybody's X-Forwarded-For: let only the proxy reach this port."
            )
        for variable, text in (
            ("MONGOUSER", self.mongo_user),
            ("MONGOPASSWORD", self.mongo_password),
            ("REDISPASSWORD", self.redis_password),
        ):
            if text is not None and text != text.strip():
                found.append(f"{variable} begins or ends with a blank or a line break, which is taken as a part of it.")
        if self.mongo_url and not self.redis_url:
            found.append(
                "Limits are per host: MongoDB is configured without Redis, so each host counts in its own instance "
                "folder. Set REDISHOST for limits of all hosts together."
            )
        return found


def is_unencrypted(address: str) -> bool:
    """Whether what is sent to this address can be read on the way."""
    url = urlsplit(address)
    return url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost")


def settings_fields() -> list[Field[Any]]:
    """Return all settings, in the order of the table in docs/settings.md. :func:`_setting` fills their ``metadata``."""
    return [field for field in fields(Settings) if field.metadata]


def unknown_settings_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each variable that looks like a setting and is none."""
    return unknown_settings(environ, [setting.metadata["variable"] for setting in settings_fields()])


def _identity(value: Callable[[str], Any]) -> Identity | None:
    """Return the identity that is set; *value* gives the values of fields.

    Raises:
        ConfigurationError: something is missing for it.
    """
    kind = value("identity_kind")
    if kind is None:
        return None
    return Identity.choose(
        kind,
        value("base_url") or "",
        authority=value("azure_authority_host"),
        scope=value("identity_scope"),
        tenant_id=value("azure_tenant_id"),
        client_id=value("identity_client_id") or value("azure_client_id"),
        client_secret=value("azure_client_secret"),
        token_file=value("azure_token_file"),
    )


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values.get("mongo_password") and not values.get("mongo_user"):
        problems.append("MONGOPASSWORD is set without MONGOUSER: set both, or neither for a server without login.")
    if values.get("mongo_user") and not (values.get("mongo_host") or values.get("mongo_full_url")):
        problems.append("MONGOUSER is set without MONGOHOST: set MONGOHOST to use MongoDB.")
    if values.get("redis_password") and not (values.get("redis_host") or values.get("redis_full_url")):
        problems.append("REDISPASSWORD is set without REDISHOST: set REDISHOST to use Redis.")
    return problems + _sign_in_contradictions(values)


def _sign_in_contradictions(values: Mapping[str, Any]) -> list[str]:
    names = {
        "oidc_issuer": "OIDC_ISSUER",
        "oidc_client_id": "OIDC_CLIENT_ID",
        "oidc_client_secret": "OIDC_CLIENT_SECRET",
    }
    others = {"oidc_user_claim": "OIDC_USER_CLAIM", "oidc_scopes": "OIDC_SCOPES", "oidc_max_days": "OIDC_MAX_DAYS"}
    if not any(values.get(name) for name in (*names, *others)):
        return []
    needed = ", ".join(names.values())
    return [
        f"{variable} is missing. Set {needed} to let people sign in with your identity provider, or none of them."
        for name, variable in names.items()
        if not values.get(name)
    ]
