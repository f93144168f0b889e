"""URLs of Redis: what they say, and what is said about those that say nothing."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from llmgateway.stores.redis.url import Kind, RedisURL
from tests.servers import PASSWORD

ESCAPED = quote(PASSWORD, safe="")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://cache", {"kind": Kind.SERVER, "hosts": (("cache", 6379),)}),
        ("redis://cache:6380/2", {"kind": Kind.SERVER, "hosts": (("cache", 6380),), "db": 2}),
        ("redis://cache/?db=3", {"kind": Kind.SERVER, "hosts": (("cache", 6379),), "db": 3}),
        ("redis://[::1]:1/", {"kind": Kind.SERVER, "hosts": (("::1", 1),)}),
        (
            f"rediss://ada:{ESCAPED}@h:1/0?ssl_ca_certs=%2Fca.pem&ssl_check_hostname=False&ssl_cert_reqs=none",
            {
                "kind": Kind.SERVER,
                "tls": True,
                "hosts": (("h", 1),),
                "username": "ada",
                "password": PASSWORD,
                "tls_options": {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False, "ssl_cert_reqs": "none"},
            },
        ),
        (f"unix://:{ESCAPED}@/run/redis.sock", {"kind": Kind.SOCKET, "path": "/run/redis.sock", "password": PASSWORD}),
        (
            "unix:///run/redis%20here?db=1&password=p%26w",
            {"kind": Kind.SOCKET, "path": "/run/redis here", "db": 1, "password": "p&w"},
        ),
        (
            f"redis+sentinel://:{ESCAPED}@a,b:7,[fe80::1]/my%20service/4?sentinel_username=w&sentinel_password={ESCAPED}",
            {
                "kind": Kind.SENTINEL,
                "hosts": (("a", 26379), ("b", 7), ("fe80::1", 26379)),
                "service": "my service",
                "db": 4,
                "password": PASSWORD,
                "sentinel_username": "w",
                "sentinel_password": PASSWORD,
            },
        ),
        ("rediss+sentinel://a/s", {"kind": Kind.SENTINEL, "tls": True, "hosts": (("a", 26379),), "service": "s"}),
        ("redis+cluster://a,b:2", {"kind": Kind.CLUSTER, "hosts": (("a", 6379), ("b", 2))}),
        ("rediss+cluster://u@a/0", {"kind": Kind.CLUSTER, "tls": True, "hosts": (("a", 6379),), "username": "u"}),
    ],
)
def test_says(text, url):
    """Ports have defaults, passwords are decoded, and the address of an IPv6 host comes without its brackets."""
    assert RedisURL(**url) == RedisURL.parse(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://h", "must begin with redis:// or rediss:// or unix:// or redis+sentinel:// or"),
        ("redis:h", "must begin with"),
        ("redis://", "lacks a host"),
        ("redis+cluster://a,,b", "lacks a host"),
        ("redis://h:x", "has a host or a port that is not valid"),
        ("redis://h:70000", "has a host or a port that is not valid"),
        ("redis://::1:6379", "has a host or a port that is not valid"),
        (f"redis://{'long' * 20}.example", "has a host or a port that is not valid"),
        ("redis://a..b", "has a host or a port that is not valid"),
        ("redis://[h]", "has a host or a port that is not valid"),
        ("redis://[1:2]", "has a host or a port that is not valid"),
        ("redis://a,b:1", "has a host or a port that is not valid"),
        ("redis://h/first", "has a database that is not a number"),
        ("redis://h?db=-1", "has a database that is not a number"),
        ("redis+cluster://h/1", "has a database: a cluster has only database 0"),
        ("redis+sentinel://h", "lacks a service"),
        ("redis+sentinel://h/s/x", "has a database that is not a number"),
        ("unix://run/redis.sock", "lacks the path of a socket"),
        ("unix://", "lacks the path of a socket"),
        ("redis://h?timeout=1", "has the parameter timeout, which is not one of db, username, password"),
        ("redis://h?ssl_cert_reqs=none", "has the parameter ssl_cert_reqs, which is not one of"),
        ("redis://h?sentinel_password=x", "has the parameter sentinel_password, which is not one of"),
        ("redis://h?!=1", "has a parameter, which is not one of"),
        ("rediss://h?ssl_cert_reqs=some", "has an ssl_cert_reqs that is not one of required, optional, none"),
        ("rediss://h?ssl_check_hostname=0", "has an ssl_check_hostname that is not one of true, false"),
        ("redis://:%ff@h", "has a percent sign that does not begin a UTF-8 character"),
        (
            "redis+sentinel://h:x?what=1",
            "has the parameter what, which is not one of db.*, and has a host or a port.*, and lacks a",
        ),
    ],
)
def test_is_refused(text, problem):
    """What is wrong is said by its name, everything at once."""
    with pytest.raises(ValueError, match=rf"^{problem.replace('+', '[+]')}"):
        RedisURL.parse(text)


@pytest.mark.parametrize("secret", ["se/cret", "se?cret=1", "se#cret", "se?x@cret", "se:cret/x", "se[cret"])
@pytest.mark.parametrize("scheme", ["redis", "rediss+sentinel", "redis+cluster", "unix"])
def test_shows_no_password(scheme, secret):
    """Also one that was not escaped, and is taken for something else, is not in the message."""
    text = f"{scheme}://ada:{secret}@host:6379/service"
    try:
        shown = repr(RedisURL.parse(text))
    except ValueError as error:
        shown = str(error)

    assert "se" + secret[2] not in shown
    assert "cret" not in shown.replace("secret", "")


def test_no_password_is_in_a_repr():
    """Whatever is logged of a URL, these are not."""
    shown = repr(RedisURL.parse(f"redis+sentinel://:{ESCAPED}@h/s?sentinel_password={ESCAPED}"))

    assert PASSWORD not in shown
    assert ESCAPED not in shown
