"""Settings: read from an environment, checked as a whole, quiet about secrets."""

from __future__ import annotations

import re
from dataclasses import MISSING
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from llmgateway.errors import ConfigurationError
from llmgateway.settings import Settings, default_processes, settings_fields

LEAST = {"ADMIN_KEY": "an-admin-key-of-24-chars", "LLM_BASE_URL": "https://n.openai.azure.com/openai/v1"}
EVERY_CHARACTER = "p@ss/w:rd %41?#[]&+ü"


def settings(**variables: str) -> Settings:
    return Settings.from_env(LEAST | variables)


def problems(**variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        settings(**variables)
    return refused.value.problems


def test_the_least_is_two_variables():
    """Everything but the admin key and Azure's address has a default."""
    least = settings()

    assert LEAST["ADMIN_KEY"] == least.admin_key
    assert (None, None) == (least.mongo_url, least.redis_url)
    assert ("127.0.0.1", 8080, default_processes(), 128) == (least.host, least.port, least.processes, least.threads)
    assert Path("instance") == least.instance


def test_reports_every_problem_at_once():
    """An operator repairs all of a broken environment in one go: each problem names its variable."""
    found = problems(
        ADMIN_KEY="",
        LLM_BASE_URL="n.openai.azure.com",
        LLM_KEY_HEADER="X-Key",
        MONGOPASSWORD="hunter2",
        REDISPORT="many",
        LLMGATEWAY_THREADS="1",
        LLMGATEWAY_CONNECT_TIMEOUT="nan",
    )

    names = ["ADMIN_KEY", "LLM_KEY_HEADER", "REDISPORT", "LLMGATEWAY_THREADS", "LLMGATEWAY_CONNECT_TIMEOUT"]
    assert [*names, "LLM_BASE_URL", "MONGOPASSWORD"] == [problem.split()[0] for problem in found]
    assert "hunter2" not in "".join(found)


def test_an_empty_environment_names_what_is_needed():
    """Without anything the one required variable is named, with what it means."""
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({})

    assert ["ADMIN_KEY is missing."] == [problem[: problem.index(".") + 1] for problem in refused.value.problems]
    assert str(refused.value) == "\n".join(refused.value.problems)


@pytest.mark.parametrize("nothing", ["", "  ", "\n"])
def test_set_to_nothing_is_not_set(nothing):
    """Compose passes on an unset variable as an empty one."""
    variables = {field.metadata["variable"]: nothing for field in settings_fields()}

    assert settings() == Settings.from_env(variables | LEAST)


@pytest.mark.parametrize("field", settings_fields(), ids=lambda field: field.name)
def test_every_setting_says_what_it_is(field):
    """The table in docs/settings.md has a name and a meaning for each, and a default that can be shown."""
    assert field.metadata["variable"].isupper()
    assert field.metadata["meaning"].endswith(".")
    assert field.default is MISSING or field.metadata["shown"] or field.default is None or str(field.default)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("LLM_KEY_HEADER", "authorization", "key_header", "Authorization"),
        ("LLM_KEY_HEADER", "OCP-APIM-SUBSCRIPTION-KEY", "key_header", "Ocp-Apim-Subscription-Key"),
        ("LLM_ON_DISCONNECT", "DRAIN", "on_disconnect", "drain"),
        ("LLMGATEWAY_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LLMGATEWAY_PORT", "0", "port", 0),
        ("LLMGATEWAY_PORT", "65535", "port", 65535),
        ("LLMGATEWAY_PROCESSES", "256", "processes", 256),
        ("LLMGATEWAY_THREADS", "8", "threads", 8),
        ("LLMGATEWAY_MODELS", "gpt-4o, o3 ,,", "models", ("gpt-4o", "o3")),
        (
            "LLMGATEWAY_CORS_ORIGINS",
            "https://a.example,http://b:3000",
            "cors_origins",
            ("https://a.example", "http://b:3000"),
        ),
        ("LLMGATEWAY_CORS_ORIGINS", "*", "cors_origins", ("*",)),
        ("LLMGATEWAY_CORS_ORIGINS", "null, app://obsidian.md", "cors_origins", ("null", "app://obsidian.md")),
        (
            "LLMGATEWAY_CORS_ORIGINS",
            f"chrome-extension://{'a' * 32}",
            "cors_origins",
            (f"chrome-extension://{'a' * 32}",),
        ),
        ("LLMGATEWAY_CORS_ORIGINS", "HTTPS://App.Example.ORG:443", "cors_origins", ("https://app.example.org",)),
        ("LLMGATEWAY_CORS_ORIGINS", "http://[::1]:3000", "cors_origins", ("http://[::1]:3000",)),
        (
            "LLMGATEWAY_CORS_ORIGINS",
            "https://bücher.example:8443",
            "cors_origins",
            ("https://xn--bcher-kva.example:8443",),
        ),
        ("LLMGATEWAY_PORT", "tcp://10.96.0.12:8080", "port", 8080),
        ("ADMIN_KEY", "schlüssel für alle Türen", "admin_key", None),
        ("LLMGATEWAY_CONNECT_TIMEOUT", "0.5", "connect_timeout", 0.5),
        ("LLMGATEWAY_INSTANCE", "/var/lib/gateway", "instance", Path("/var/lib/gateway")),
        ("LLM_API_VERSION", " 2024-10-21\n", "api_version", "2024-10-21"),
        ("REDIS_URL", " redis://h:1/0\n", "redis_full_url", "redis://h:1/0"),
        ("MONGOHOST", "[::1]:27018", "mongo_host", "[::1]:27018"),
        ("MONGOHOST", "db.example:65535", "mongo_host", "db.example:65535"),
        ("REDIS_URL", "redis://:p%2Fw@h:1/0", "redis_full_url", "redis://:p%2Fw@h:1/0"),
        ("MONGO_URL", "mongodb://u:p%2Fw@a:1,[::1]:2,c/db?tls=true", "mongo_full_url", None),
        ("MONGO_URL", "mongodb://%2Ftmp%2Fmongodb-27017.sock/", "mongo_full_url", None),
        ("MONGO_URL", "mongodb+srv://u:p@c.example/?retryWrites=true", "mongo_full_url", None),
        ("LLMGATEWAY_TRUSTED_PROXY", "2001:db8::1", "trusted_proxy", None),
        ("LLMGATEWAY_TRUSTED_PROXY", "*", "trusted_proxy", None),
        ("LLMGATEWAY_TRUSTED_PROXY", "2001:DB8:0::1", "trusted_proxy", "2001:db8::1"),
        ("LLMGATEWAY_TRUSTED_PROXY", "::ffff:10.0.0.1", "trusted_proxy", "10.0.0.1"),
    ],
)
def test_reads_values(variable, text, field, value):
    """What operators write is read as they mean it; None stands for: as it is."""
    expected = text if value is None else value

    assert expected == getattr(settings(**{variable: text}), field)


@pytest.mark.parametrize(
    ("variable", "text", "remedy"),
    [
        ("LLM_BASE_URL", "https://n.openai.azure.com/openai/deployments/gpt", "set LLM_API_VERSION"),
        ("LLM_KEY_HEADER", "x-api-key", "must be one of api-key, Authorization, Ocp-Apim-Subscription-Key"),
        ("LLM_ON_DISCONNECT", "stop", "must be one of auto, close, drain"),
        ("LLMGATEWAY_LOG_LEVEL", "loud", "must be one of DEBUG, INFO, WARNING, ERROR"),
        ("MONGOHOST", "mongodb://host", "put a full URL into MONGO_URL"),
        ("MONGOHOST", "user@host", "put a full URL into MONGO_URL"),
        ("REDISHOST", "redis host", "put a full URL into MONGO_URL or REDIS_URL"),
        ("MONGOHOST", "host:port", "must be host or host:port"),
        ("MONGOHOST", "host:65536", "must be host or host:port"),
        ("MONGOHOST", "::1", "must be host or host:port"),
        ("REDISHOST", "cache:6380", "put the port into REDISPORT"),
        ("REDIS_URL", "redis://:se/cret@host:6379", "has a login that cannot be read"),
        ("LLM_IDENTITY", "azure", "must be one of managed, workload, secret, auto"),
        ("LLM_IDENTITY_SCOPE", "https://cognitiveservices.azure.com", "must end with /.default"),
        ("LLM_API_KEY", "…", "must be visible ASCII"),
        ("LLM_API_KEY", "two words", "must be visible ASCII"),
        ("LLM_API_KEY", "key\n", "copy the key again"),
        ("LLM_API_KEY", " key", "copy the key again"),
        ("ADMIN_KEY", "an-admin-key-of-24-chars\n", "begins or ends with a blank or a line break: remove it"),
        ("ADMIN_KEY", " an-admin-key-of-24-chars", "begins or ends with a blank"),
        ("ADMIN_KEY", "an-admin-key\nof-24-chars", "must not contain line breaks or control characters"),
        ("ADMIN_KEY", "ключ-от-всех-дверей", "characters that a header cannot carry: use letters, digits"),
        ("ADMIN_KEY", "an-admin-key-of-24-chars…", "set it to the old ADMIN_KEY"),
        ("ADMIN_KEY", "an-admin-key\xad-of-24-chars", "characters that a header cannot carry"),
        ("ADMIN_KEY", "an-admin-key\x85-of-24-chars", "characters that a header cannot carry"),
        ("SECRET_KEY", "secret ", "begins or ends with a blank"),
        ("LLM_BASE_URL", "https://n.services.ai.azure.com/api/projects/p", "https://n.services.ai.azure.com/openai/v1"),
        (
            "MONGO_URL",
            "mongodb://h/?tls=true&tlsCAFile=/no/ca.pem",
            "with tlsCAFile a file that cannot be read: /no/ca.pem",
        ),
        ("REDIS_URL", "rediss://h/0?ssl_ca_certs=/no/ca.pem", "with ssl_ca_certs a file that cannot be read"),
        ("MONGO_URL", "mongodb://ada:se/cret@host:27017/", "a host or a port that is not valid: write USER:PASSWORD@"),
        ("MONGO_URL", "mongodb://ada:secret@host:99999/", "a host or a port that is not valid"),
        ("MONGO_URL", "mongodb://ada:secret@/gateway", "a host or a port that is not valid"),
        ("MONGO_URL", "mongodb://ada:p@ssword@host/", "a login that cannot be read: in a password write %2F"),
        ("MONGO_URL", "mongodb://ada:pass:word@host/", "a login that cannot be read"),
        ("LLMGATEWAY_TRUSTED_PROXY", "nginx", "must be an IP address, or \\* for any"),
        ("LLMGATEWAY_TRUSTED_PROXY", "10.0.0.0/8", "must be an IP address"),
        ("LLMGATEWAY_CORS_ORIGINS", "https://a.example,https://b.example/", "without a path or a slash at the end"),
        ("LLMGATEWAY_CORS_ORIGINS", "a.example", "must be like https://app.example.org"),
        ("LLMGATEWAY_CORS_ORIGINS", "https://*.example.org", "no patterns: name each origin"),
        ("LLMGATEWAY_CORS_ORIGINS", "https://a.example,chrome-extension://*", "no patterns"),
        ("LLMGATEWAY_CORS_ORIGINS", "https://(a|b).example", "no patterns"),
        ("LLMGATEWAY_CORS_ORIGINS", r"https://a\.example", "no patterns"),
        ("LLMGATEWAY_CORS_ORIGINS", ".*", "must be like https://app.example.org"),
        ("LLMGATEWAY_CORS_ORIGINS", "^https://a.example$", "no patterns"),
        ("LLMGATEWAY_CORS_ORIGINS", "https://a.example:99999", "must have a port from 1 to 65535"),
        ("LLMGATEWAY_CORS_ORIGINS", "https://me@a.example", "without a path or a slash at the end"),
        ("LLMGATEWAY_CORS_ORIGINS", f"https://{'ü' * 80}.example", "a host that is not valid"),
        ("MONGO_URL", "host:27017", r"must begin with mongodb:// or mongodb\+srv://"),
        ("REDIS_URL", "http://host", "must begin with redis:// or rediss:// or unix://"),
        ("REDISPORT", "0", "must be a whole number from 1 to 65535"),
        ("REDISPORT", "65536", "must be a whole number from 1 to 65535"),
        ("REDISPORT", "-1", "must be a whole number"),
        ("REDISPORT", "6379.0", "must be a whole number"),
        ("REDISPORT", "٣", "must be a whole number"),
        ("REDISPORT", "9" * 5000, "must be a whole number"),
        ("LLMGATEWAY_PORT", "http", "must be a whole number from 0 to 65535"),
        ("LLMGATEWAY_PROCESSES", "0", "must be a whole number from 1 to 256"),
        ("LLMGATEWAY_THREADS", "7", "must be a whole number from 8 to 4096"),
        ("LLMGATEWAY_MAX_BODY_BYTES", "1023", "must be a whole number from 1024"),
        ("LLMGATEWAY_CONNECT_TIMEOUT", "0", "must be a number from 0.1 to 300"),
        ("LLMGATEWAY_CONNECT_TIMEOUT", "inf", "must be a number from 0.1 to 300"),
        ("LLMGATEWAY_FIRST_BYTE_TIMEOUT", "nan", "must be a number from 0.1 to 3600"),
        ("LLMGATEWAY_BETWEEN_BYTES_TIMEOUT", "5s", "must be a number from 0.1 to 3600"),
    ],
)
def test_refuses_what_makes_no_sense(variable, text, remedy):
    """A malformed value is named with what it has to be."""
    (problem,) = problems(**{variable: text})

    assert problem.startswith(f"{variable} ")
    assert re.search(remedy, problem)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"MONGOHOST": "db", "MONGOPASSWORD": "p"}, "MONGOPASSWORD is set without MONGOUSER"),
        ({"MONGOUSER": "me"}, "MONGOUSER is set without MONGOHOST"),
        ({"REDISPASSWORD": "p"}, "REDISPASSWORD is set without REDISHOST"),
    ],
)
def test_refuses_what_contradicts_itself(variables, names):
    """Half of a login would end in a server without one, unnoticed."""
    (problem,) = problems(**variables)

    assert problem.startswith(names)


def test_escapes_logins_in_urls():
    """User and password are given as they are; in the URL they cannot be taken for anything else."""
    both = settings(
        MONGOHOST="db:27018", MONGOUSER=EVERY_CHARACTER, MONGOPASSWORD=EVERY_CHARACTER,
        REDISHOST="cache", REDISPORT="6380", REDISPASSWORD=EVERY_CHARACTER,
    )  # fmt: skip

    mongo, redis = urlsplit(both.mongo_url), urlsplit(both.redis_url)

    assert ("mongodb", "db", 27018, "/") == (mongo.scheme, mongo.hostname, mongo.port, mongo.path)
    assert (EVERY_CHARACTER, EVERY_CHARACTER) == (unquote(mongo.username), unquote(mongo.password))
    assert ("redis", "cache", 6380, "/0") == (redis.scheme, redis.hostname, redis.port, redis.path)
    assert ("", EVERY_CHARACTER) == (redis.username, unquote(redis.password))


@pytest.mark.parametrize("password", [" pass word ", "password\n", "\tpassword"])
def test_takes_logins_as_they_are(password):
    """A blank at an end is a part of the password, as it is for the server; somebody who did not mean it is told."""
    both = settings(MONGOHOST="db", MONGOUSER=password, MONGOPASSWORD=password, REDISHOST="h", REDISPASSWORD=password)

    mongo, redis = urlsplit(both.mongo_url), urlsplit(both.redis_url)
    assert (password, password) == (unquote(mongo.username), unquote(mongo.password))
    assert password == unquote(redis.password)
    assert ["MONGOUSER", "MONGOPASSWORD", "REDISPASSWORD"] == [text.split()[0] for text in both.warnings()]
    assert "word" not in "".join(both.warnings()).replace("PASSWORD", "")


@pytest.mark.parametrize(
    ("variables", "mongo", "redis"),
    [
        ({}, None, None),
        ({"MONGOHOST": "db"}, "mongodb://db/", None),
        ({"REDISHOST": "cache"}, None, "redis://cache:6379/0"),
        ({"MONGOHOST": "db", "MONGO_URL": "mongodb+srv://x/"}, "mongodb+srv://x/", None),
        ({"REDISHOST": "cache", "REDIS_URL": "rediss://y:1/2"}, None, "rediss://y:1/2"),
        ({"MONGOUSER": "me", "MONGO_URL": "mongodb://x/"}, "mongodb://x/", None),
        ({"REDISPASSWORD": "p", "REDIS_URL": "unix:///run/redis"}, None, "unix:///run/redis"),
    ],
)
def test_chooses_stores(variables, mongo, redis):
    """Hosts make URLs, full URLs win, nothing means embedded."""
    chosen = settings(**variables)

    assert (mongo, redis) == (chosen.mongo_url, chosen.redis_url)


def test_shows_no_secret():
    """Nothing that opens a door is in the repr of the settings."""
    secrets = {
        "ADMIN_KEY": "secret-admin-key-value",
        "LLM_API_KEY": "secret-azure",
        "MONGOPASSWORD": "secret-mongo",
        "MONGO_URL": "mongodb://u:secret-mongo-url@h/",
        "REDISPASSWORD": "secret-redis",
        "REDIS_URL": "redis://:secret-redis-url@h/",
        "SECRET_KEY": "secret-secret",
        "AZURE_CLIENT_SECRET": "secret-client",
        "OIDC_CLIENT_SECRET": "secret-oidc",
    }

    oidc = {"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "gateway"}
    shown = repr((made := settings(MONGOUSER="me", **oidc, **secrets), made.oidc))

    assert "secret-" not in shown
    assert {field.metadata["variable"] for field in settings_fields() if field.metadata["secret"]} == set(secrets)


@pytest.mark.parametrize(
    ("variables", "warnings"),
    [
        ({}, []),
        ({"ADMIN_KEY": "fifteen-letters"}, ["ADMIN_KEY IS TOO SHORT"]),
        ({"ADMIN_KEY": "sixteen-letters!"}, []),
        ({"LLM_BASE_URL": "http://azure.example/openai/v1"}, ["LLM_BASE_URL is not https"]),
        ({"LLM_BASE_URL": "http://127.0.0.1:8081/openai/v1"}, []),
        ({"LLM_BASE_URL": "http://[::1]:8081/openai/v1"}, []),
        ({"LLMGATEWAY_TRUSTED_PROXY": "*"}, ["LLMGATEWAY_TRUSTED_PROXY=*"]),
        ({"MONGOHOST": "mongo.example"}, ["Limits are per host"]),
        ({"MONGOHOST": "mongo.example", "REDISHOST": "redis.example"}, []),
        ({"REDISHOST": "redis.example"}, []),
    ],
)
def test_warns_of_what_should_not_stay(variables, warnings):
    """A guessable admin key, an unencrypted way to Azure and a trust in everybody are said aloud, key unseen."""
    found = settings(**variables).warnings()

    assert len(warnings) == len(found)
    assert all(text.startswith(start) for text, start in zip(found, warnings, strict=True))
    assert "fifteen-letters" not in "".join(found)


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("LLMGATEWAY_THREAD", "Did you mean LLMGATEWAY_THREADS?"),
        ("LLMGATEWAY_MAX_BODY_SIZE", "Did you mean LLMGATEWAY_MAX_BODY_BYTES?"),
        ("LLMGATEWAY_TRUSTED_PROXIES", "Did you mean LLMGATEWAY_TRUSTED_PROXY?"),
        ("LLMGATEWAY_CORS_ORIGIN", "Did you mean LLMGATEWAY_CORS_ORIGINS?"),
        ("LLM_GATEWAY_PORT", "Did you mean LLMGATEWAY_PORT?"),
        ("llmgateway_port", "Did you mean LLMGATEWAY_PORT?"),
        ("LLMGATEWAYPORT", "Did you mean LLMGATEWAY_PORT?"),
        ("LLMGATEWAY_XYZZY", "docs/settings.md lists all settings"),
    ],
)
def test_warns_of_settings_that_there_are_not(variable, says):
    """A typing error would else be noticed when it hurts; the value, which may be a secret, is not shown."""
    (warning,) = settings(**{variable: "hunter2"}).warnings()

    assert warning.startswith(f"{variable} is not a setting")
    assert says in warning
    assert "hunter2" not in warning


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LLMGATEWAY_URL", "http://gateway:8080"),
        ("LLMGATEWAY_TEST_REDIS_URL", "redis://h"),
        ("LLMGATEWAY_PORT", "tcp://10.96.0.12:8080"),
        ("LLMGATEWAY_PORT_8080_TCP", "tcp://10.96.0.12:8080"),
        ("LLMGATEWAY_PORT_8080_TCP_ADDR", "10.96.0.12"),
        ("LLMGATEWAY_SERVICE_HOST", "10.96.0.12"),
        ("LLMGATEWAY_SERVICE_PORT_HTTP", "8080"),
        ("LLMGATEWAY_REDIS_PORT", "tcp://10.96.0.13:6379"),
        ("LLMGATEWAY_REDIS_SERVICE_HOST", "10.96.0.13"),
        ("LLMGATEWAY_REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ("LLMGATEWAY_THREAD", ""),
        ("MY_LLMGATEWAY_THREAD", "1"),
    ],
)
def test_is_quiet_about_what_is_for_others(variable, text):
    """Settings of the command line, what Kubernetes sets for Services of our name, and what is set to nothing."""
    assert [] == settings(**{variable: text}).warnings()


def test_has_the_endpoint_of_the_url():
    """LLM_API_VERSION completes a URL that names a deployment."""
    chosen = settings(
        LLM_BASE_URL="https://n.openai.azure.com/openai/deployments/gpt", LLM_API_VERSION="2024-10-21"
    ).endpoint

    assert chosen.url("gpt").endswith("/deployments/gpt/chat/completions?api-version=2024-10-21")
    assert "gpt" == chosen.deployment


def test_identity_takes_its_parts_from_several_settings():
    """The client of our own setting wins over that of the platform; the cloud is that of the address."""
    chosen = settings(
        LLM_BASE_URL="https://n.openai.azure.us/openai/v1",
        LLM_IDENTITY="auto",
        LLM_IDENTITY_CLIENT_ID="ours",
        AZURE_CLIENT_ID="of-the-platform",
        AZURE_TENANT_ID="tenant",
        AZURE_FEDERATED_TOKEN_FILE="file",
    ).identity

    assert ("workload", "ours", "login.microsoftonline.us") == (chosen.kind, chosen.client_id, chosen.authority)
    assert settings(AZURE_CLIENT_ID="of-the-platform", AZURE_AUTHORITY_HOST="http://h").identity is None


def test_names_what_an_identity_lacks_among_all_problems():
    """What is missing is said with everything else that is wrong."""
    told = problems(LLM_IDENTITY="secret", AZURE_TENANT_ID="tenant", REDISPORT="0")

    assert ["REDISPORT", "LLM_IDENTITY=secret", "LLM_IDENTITY=secret"] == [one.split()[0] for one in told]


def test_warns_of_a_key_beside_an_identity():
    """Only one of them can be sent."""
    assert any("LLM_API_KEY is not used" in one for one in settings(LLM_IDENTITY="managed", LLM_API_KEY="k").warnings())


OIDC = {"OIDC_ISSUER": "https://id.example.org/realms/x/", "OIDC_CLIENT_ID": "gateway", "OIDC_CLIENT_SECRET": "s" * 20}


def test_an_identity_provider_is_complete_or_none():
    """The issuer stays as it is, also with a slash at its end: the provider's is compared with it."""
    provider = settings(**OIDC, OIDC_SCOPES="openid  groups").oidc
    assert (OIDC["OIDC_ISSUER"], "gateway", ("openid", "groups")) == (
        provider.issuer,
        provider.client_id,
        provider.scopes,
    )
    assert settings().oidc is None


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OIDC_ISSUER": "https://id.example.org"}, ["OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]),
        ({"OIDC_CLIENT_SECRET": "s"}, ["OIDC_ISSUER", "OIDC_CLIENT_ID"]),
        ({"OIDC_MAX_DAYS": "9"}, ["OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]),
        ({"OIDC_USER_CLAIM": "email"}, ["OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"]),
        (OIDC | {"OIDC_ISSUER": "id.example.org"}, ["OIDC_ISSUER"]),
        (OIDC | {"OIDC_ISSUER": "https://login.microsoftonline.com/common/v2.0"}, ["OIDC_ISSUER"]),
        (OIDC | {"OIDC_ISSUER": "https://user:secret@id.example.org"}, ["OIDC_ISSUER"]),
        (OIDC | {"OIDC_SCOPES": "profile"}, ["OIDC_SCOPES"]),
        (OIDC | {"OIDC_MAX_DAYS": "0"}, ["OIDC_MAX_DAYS"]),
        ({"LLMGATEWAY_PUBLIC_URL": "gateway.example.org"}, ["LLMGATEWAY_PUBLIC_URL"]),
        ({"LLMGATEWAY_PUBLIC_URL": "https://gateway.example.org/?x"}, ["LLMGATEWAY_PUBLIC_URL"]),
        ({"LLMGATEWAY_SESSION_HOURS": "0"}, ["LLMGATEWAY_SESSION_HOURS"]),
    ],
)
def test_what_contradicts_itself_about_signing_in_is_named(variables, named):
    with pytest.raises(ConfigurationError) as caught:
        settings(**variables)
    assert named == [problem.split()[0] for problem in caught.value.problems if not problem.startswith("LLM_")]
    assert "secret" not in " ".join(caught.value.problems).replace("OIDC_CLIENT_SECRET", "")


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr("llmgateway.oidc.settings.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"llmgateway\[oidc\]"):
        settings(**OIDC)


def test_warns_of_addresses_that_are_not_encrypted():
    warnings = settings(
        **OIDC | {"OIDC_ISSUER": "http://id.example.org"}, LLMGATEWAY_PUBLIC_URL="http://gw.example.org"
    ).warnings()
    assert ["OIDC_ISSUER", "LLMGATEWAY_PUBLIC_URL"] == [each.split()[0] for each in warnings if "not https" in each]
