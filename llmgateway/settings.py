"""The settings of the gateway. They are read from the environment once, and checked together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .azure.endpoint import Endpoint
from .errors import ConfigurationError
from .stores.redis.url import RedisURL

KEY_HEADERS = ("api-key", "Authorization", "Ocp-Apim-Subscription-Key")
SHORT_ADMIN_KEY = 16  # characters; a shorter key can be guessed
_HOST_AND_PORT = re.compile(r"(?:[^:\[\]]+|\[[^\[\]]+\])(?::(\d{1,5}))?\Z", re.ASCII)


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


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        # Without urlsplit(), because its error messages can contain a password.
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError("must begin with " + " or ".join(f"{scheme}://" for scheme in schemes))
        return text

    return parse


def _host(text: str) -> str:
    if "/" in text or "@" in text or any(c.isspace() for c in text):
        raise ValueError("must be a host name or host:port; put a full URL into MONGO_URL or REDIS_URL")
    return text


def _host_alone(text: str) -> str:
    if ":" in _host(text):
        raise ValueError("must be a host name without a port: put the port into REDISPORT, a full URL into REDIS_URL")
    return text


def _host_and_port(text: str) -> str:
    match = _HOST_AND_PORT.match(_host(text))
    if not match or not 1 <= int(match[1] or 1) <= 65535:
        raise ValueError("must be host or host:port, with a port from 1 to 65535; put a full URL into MONGO_URL")
    return text


def _redis_url(text: str) -> str:
    RedisURL.parse(text)
    return text


def _mongo_url(text: str) -> str:
    # Finds most errors without the driver, so that they are reported together with the errors of other settings.
    url = _url("mongodb", "mongodb+srv")(text)
    authority = re.split("[/?]", url.partition("://")[2], maxsplit=1)[0]
    login, _, hosts = authority.rpartition("@")
    if "@" in login or login.count(":") > 1:
        raise ValueError("has a login that cannot be read: in a password write %2F for /, %3A for :, %40 for @")
    try:
        for host in hosts.split(","):
            _host_and_port(host)
    except ValueError:
        raise ValueError(
            "has a host or a port that is not valid: write USER:PASSWORD@HOST:PORT, in a password write %2F for /, "
            "%3A for :, %40 for @"
        ) from None
    return url


def _address(text: str) -> str:
    if text != "*":
        try:
            ip_address(text)
        except ValueError:
            raise ValueError(
                "must be an IP address, or * for any: it is compared with the address that requests come from"
            ) from None
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = _names(text)
    for origin in origins:
        # Browsers send origins without a path and without a slash at the end (RFC 6454 section 7).
        if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
            raise ValueError("must be like https://app.example.org, without a path or a slash at the end")
    return origins


def _without_blanks_around(text: str) -> str:
    if text != text.strip():
        raise ValueError("begins or ends with a blank or a line break: remove it")
    return text


def _admin_key(text: str) -> str:
    # A header value cannot begin or end with blanks, and cannot contain control characters (RFC 9110 section 5.5).
    if re.search(r"[\x00-\x1f\x7f]", _without_blanks_around(text)):
        raise ValueError("must not contain line breaks or control characters: it is sent in a header")
    return text


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be visible ASCII characters without spaces: copy the key again")
    return text


def _setting(
    variable: str,
    meaning: str,
    default: Any = MISSING,
    *,
    parse: Callable[[str], Any] = _text,
    secret: bool = False,
    as_it_is: bool = False,
    shown: str | None = None,
) -> Any:
    """Declare a field that is read from *variable*.

    Args:
        meaning: Description of the setting in docs/settings.md.
        default: MISSING if the variable is required.
        as_it_is: Do not strip blanks before *parse*. Other values are stripped, because tools that write the
            environment may add a line break.
        shown: The default in docs/settings.md, if ``str()`` of the default is not suitable.
    """
    metadata = {
        "variable": variable,
        "meaning": meaning,
        "parse": parse,
        "secret": secret,
        "as_it_is": as_it_is,
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
        "Key of the admin API, sent as the header `AdminKey`. The gateway warns if it is shorter than 16 characters.",
        parse=_admin_key,
        secret=True,
        as_it_is=True,
    )
    base_url: str = _setting(
        "LLM_BASE_URL",
        "Address of Azure, up to `/chat/completions`, in any form in which Azure shows it: "
        "`https://NAME.openai.azure.com/openai/v1`, `…/openai/deployments/NAME`, `…/deployments/{model}`, "
        "an API Management URL.",
    )
    api_key: str | None = _setting(
        "LLM_API_KEY",
        "Azure's key. A key that was set through `/admin/setllmkey` wins over this one.",
        None,
        parse=_header_value,
        secret=True,
        as_it_is=True,
    )
    api_version: str | None = _setting("LLM_API_VERSION", "`api-version` for URLs that name a deployment.", None)
    key_header: str = _setting(
        "LLM_KEY_HEADER",
        "Header that carries Azure's key: `api-key`, `Authorization` (as Bearer) or `Ocp-Apim-Subscription-Key`.",
        "api-key",
        parse=_one_of(*KEY_HEADERS),
    )
    mongo_host: str | None = _setting(
        "MONGOHOST",
        "MongoDB, `host[:port]`: keys, prompt and usage log.",
        None,
        parse=_host_and_port,
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
        parse=_mongo_url,
        secret=True,
    )
    redis_host: str | None = _setting(
        "REDISHOST",
        "Redis: looks up keys and counts limits.",
        None,
        parse=_host_alone,
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
        parse=_redis_url,
        secret=True,
    )
    secret_key: str | None = _setting(
        "SECRET_KEY",
        "Encrypts the stored Azure key and signs entries in Redis; must be the same on all hosts.",
        None,
        parse=_without_blanks_around,
        secret=True,
        as_it_is=True,
        shown="derived from `ADMIN_KEY`",
    )
    on_disconnect: str = _setting(
        "LLM_ON_DISCONNECT",
        "When a client leaves: `close` stops the request at Azure at once, `drain` reads the answer to its end for an "
        "exact token count.",
        "close",
        parse=_one_of("close", "drain"),
    )
    instance: Path = _setting(  # noqa: RUF009
        "LLMGATEWAY_INSTANCE",
        "Folder for everything the program writes. Metrics of several processes are in shared memory.",
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
    )
    connect_timeout: float = _setting(
        "LLMGATEWAY_CONNECT_TIMEOUT", "Seconds to connect to Azure.", 5.0, parse=_number(0.1, 300)
    )
    first_byte_timeout: float = _setting(
        "LLMGATEWAY_FIRST_BYTE_TIMEOUT",
        "Seconds until Azure begins to answer; reasoning models think for minutes.",
        300.0,
        parse=_number(0.1, 3600),
    )
    between_bytes_timeout: float = _setting(
        "LLMGATEWAY_BETWEEN_BYTES_TIMEOUT",
        "Seconds of silence in the middle of an answer.",
        120.0,
        parse=_number(0.1, 3600),
    )
    client_timeout: float = _setting(
        "LLMGATEWAY_CLIENT_TIMEOUT",
        "Seconds that a client may take to send a request (longer for a large one), and that it may read nothing of "
        "its answer.",
        60.0,
        parse=_number(1, 3600),
    )
    max_body_bytes: int = _setting(
        "LLMGATEWAY_MAX_BODY_BYTES",
        "Largest body of a request in bytes; a larger one gets 413.",
        32 * 1024 * 1024,
        parse=_integer(1024, 1024**3),
    )
    store_timeout: float = _setting(
        "LLMGATEWAY_STORE_TIMEOUT", "Seconds to wait for Redis or MongoDB.", 2.0, parse=_number(0.05, 60)
    )
    log_days: int | None = _setting(
        "LLMGATEWAY_LOG_DAYS",
        "Number of days before today whose single usage records are kept; the sums in reports are always kept.",
        None,
        parse=_integer(1, 36500),
        shown="all",
    )
    drain_seconds: float = _setting(
        "LLMGATEWAY_DRAIN_SECONDS", "Seconds that running answers get to end at SIGTERM.", 30.0, parse=_number(0, 3600)
    )
    disconnect_drain_seconds: float = _setting(
        "LLMGATEWAY_DISCONNECT_DRAIN_SECONDS",
        "With `LLM_ON_DISCONNECT=drain`: the most seconds spent on one abandoned answer.",
        60.0,
        parse=_number(1, 3600),
    )
    trusted_proxy: str | None = _setting(
        "LLMGATEWAY_TRUSTED_PROXY",
        "Address of your proxy, whose `X-Forwarded-*` headers are believed; `*` for any (then only the proxy may be "
        "able to reach the gateway).",
        None,
        parse=_address,
        shown="nobody",
    )
    cors_origins: tuple[str, ...] = _setting(
        "LLMGATEWAY_CORS_ORIGINS",
        "Origins whose pages may call the API from a browser, separated by commas.",
        (),
        parse=_origins,
        shown="none",
    )
    metrics: str = _setting(
        "LLMGATEWAY_METRICS",
        "Who may read `/metrics`: `admin` (with the admin key), `open` (anybody who reaches the port), `off` (nobody).",
        "admin",
        parse=_one_of("admin", "open", "off"),
    )
    log_level: str = _setting(
        "LLMGATEWAY_LOG_LEVEL",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`.",
        "INFO",
        parse=_one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check all settings.

        An empty variable, or one with only blanks, counts as not set. Docker Compose passes variables that are missing
        in its own environment as empty variables.

        Raises:
            ConfigurationError: has all problems; each message begins with the name of the variable.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in settings_fields():
            variable = setting.metadata["variable"]
            text = environ.get(variable, "")
            if not setting.metadata["as_it_is"]:
                text = text.strip()
            if not text.strip():
                if setting.default is MISSING:
                    problems.append(f"{variable} is missing. {setting.metadata['meaning']}")
                continue
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                problems.append(f"{variable} {error}.")
        if "base_url" in values:
            try:
                Endpoint.parse(values["base_url"], values.get("api_version"))
            except ValueError as error:
                problems.append(f"LLM_BASE_URL {error}.")
        problems += _contradictions(values)
        if problems:
            raise ConfigurationError(problems)
        return cls(**values)

    def make_instance_folder(self) -> None:
        """Create the folder for all files of the gateway, if it does not exist.

        Raises:
            ConfigurationError: the folder cannot be created, or is not writable.
        """
        try:
            self.instance.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            problem = f"LLMGATEWAY_INSTANCE: the folder {self.instance} cannot be made: {error.strerror}."
            raise ConfigurationError([problem]) from error
        if not os.access(self.instance, os.W_OK | os.X_OK):
            raise ConfigurationError([f"LLMGATEWAY_INSTANCE: the folder {self.instance} is not writable."])

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.parse(self.base_url, self.api_version)

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

    def warnings(self) -> list[str]:
        """Return a warning for each setting that works but should be changed."""
        found = []
        if len(self.admin_key) < SHORT_ADMIN_KEY:
            found.append(
                f"ADMIN_KEY IS TOO SHORT: it can be guessed. Use {SHORT_ADMIN_KEY} characters or more, "
                "for example from: openssl rand -hex 24"
            )
        url = urlsplit(self.base_url)
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            found.append("LLM_BASE_URL is not https: Azure's key and everybody's conversations travel unencrypted.")
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


def settings_fields() -> list[Field[Any]]:
    """Return all settings, in the order of the table in docs/settings.md. :func:`_setting` fills their ``metadata``."""
    return list(fields(Settings))


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values.get("mongo_password") and not values.get("mongo_user"):
        problems.append("MONGOPASSWORD is set without MONGOUSER: set both, or neither for a server without login.")
    if values.get("mongo_user") and not (values.get("mongo_host") or values.get("mongo_full_url")):
        problems.append("MONGOUSER is set without MONGOHOST: set MONGOHOST to use MongoDB.")
    if values.get("redis_password") and not (values.get("redis_host") or values.get("redis_full_url")):
        problems.append("REDISPASSWORD is set without REDISHOST: set REDISHOST to use Redis.")
    return problems
