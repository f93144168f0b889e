"""What is wrong with a body that is not JSON, and where; nothing of it is quoted."""

from __future__ import annotations

import gzip
import json

import orjson
import pytest

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.json_errors import why_not_json
from llmgateway.proxy.parsing import CHAT_FORMAT, parse

HELLO = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Grüße, privat"}]}
TEXT = json.dumps(HELLO, ensure_ascii=False)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a": NaN}', " at byte 6: NaN is not JSON"),
        ('{"ä": NaN}'.encode(), " at byte 7: NaN is not JSON"),
        (b'{"a": Infinity}', " at byte 6: Infinity is not JSON"),
        (b'{"a": -Infinity}', " at byte 7: Infinity is not JSON"),
        (b'{"a": True}', " at byte 6: this is Python"),
        (b'{"a": None}', " at byte 6: this is Python"),
        (b'{"a": undefined}', " at byte 6: undefined"),
        (b"{'a': 1}", " at byte 1: strings need double quotes"),
        (b'{"a": 1 // x\n}', " at byte 8: comments"),
        (b'{"a": 1,}', " at byte 7: trailing comma"),
        (b'{"a": 1', " at byte 7: unexpected end"),
        (b'{"a": "x\ny"}', " at byte 8: unexpected control character"),
        (b'{"a": "\\x"}', " at byte 7: invalid escape"),
        (b"{} {}", " at byte 3: unexpected content"),
        (b"[1e999]", " at byte 1: the number is too large"),
        (b"model=gpt-4o", " at byte 0: unexpected character"),
        (b"\xef\xbb\xbf" + TEXT.encode(), ": it begins with a byte order mark"),
        (TEXT.encode("utf-16"), ": it is UTF-16"),
        (TEXT.encode("utf-16-le"), ": it is UTF-16"),
        (TEXT.encode("utf-16-be"), ": it is UTF-16"),
        (TEXT.encode("utf-32"), ": it is UTF-16 or UTF-32"),
        (TEXT.encode("latin-1"), f": it is not UTF-8 at byte {TEXT.index('ü')}. Is it Latin-1"),
        (TEXT.encode("cp1252"), f": it is not UTF-8 at byte {TEXT.index('ü')}. Is it Latin-1"),
        (gzip.compress(TEXT.encode(), mtime=0), ": it is compressed"),
    ],
)
def test_says_what_and_where(body, says):
    """In the message for a completion, which also ends like a sentence."""
    with pytest.raises(InvalidRequest) as refused:
        parse(body, CHAT_FORMAT)

    assert why_not_json(body).startswith(says)
    assert refused.value.message == f"The body is not valid JSON{why_not_json(body)}."
    assert "privat" not in refused.value.message


@pytest.mark.parametrize("place", range(0, len(TEXT), 7))
def test_quotes_nothing(place):
    """Wherever the body is broken."""
    secret = "s3cr3t"
    for broken in (TEXT[:place] + secret + TEXT[place:], TEXT[:place]):
        body = broken.encode()
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            assert secret not in why_not_json(body)
            assert "priv" not in why_not_json(body)


def test_has_nothing_to_say_about_json():
    """So that it can be asked about every body."""
    assert "" == why_not_json(TEXT.encode())
