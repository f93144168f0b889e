"""Forms with files: what is read, what is sent on, and what is refused."""

from __future__ import annotations

import io

import pytest

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.forms import PIECE, FormFormat, read_form
from llmgateway.proxy.parsing import BodyFormat

FORM = FormFormat(
    fields=BodyFormat("model file prompt stream n", example="'model' and 'file'"),
    files=("file",),
    required="file",
    inspect=lambda _file, part: part.size,
    numbers=("n",),
)
MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nsound'


def field(name: str, value: str = "x") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def body(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


def read(data: bytes, content_type: str | None = "multipart/form-data; boundary=B", form: FormFormat = FORM):
    return read_form(io.BytesIO(data), len(data), content_type, form)


def test_reads_the_fields_that_it_needs():
    """Fields have their types, other fields are not read, and of a file there is what was found out."""
    form = read(body(field("temperature", "0.5"), MODEL, FILE, field("stream", "True"), field("n", "3")))

    assert {"model": "whisper", "file": [5], "stream": True, "n": 3} == form.document


@pytest.mark.parametrize("name", ['a\\"b.wav', "a;b.wav", "a\\b.wav", "ä.wav", "a'b.wav", "", "%22.wav"])
def test_takes_any_name_of_a_file_that_everybody_reads_alike(name):
    """Some clients put a backslash before a quotation mark, as older ones of curl."""
    form = read(body(MODEL, FILE.replace(b"a.wav", name.encode())))

    assert {"model": "whisper", "file": [5]} == form.document


def test_sends_the_same_bytes_as_often_as_needed():
    """A second deployment gets the same body."""
    data = body(MODEL, FILE)
    form = read(data)

    assert data == b"".join(form) == b"".join(form)
    assert len(data) == len(form)
    assert 'multipart/form-data; boundary="B"' == form.content_type


@pytest.mark.parametrize("model", ["w", "a-much-longer-name-of-a-deployment"])
def test_names_another_model_on_the_way(model):
    """The field is replaced, its length is right, and everything else stays."""
    named = read(body(MODEL, FILE)).naming(model)

    assert body(field("model", model), FILE) == b"".join(named)
    assert len(b"".join(named)) == len(named)


def test_names_a_model_where_there_was_none():
    """The path has named it, and Azure's v1 form wants it in the body."""
    named = read(body(FILE)).naming("whisper")

    assert body(MODEL, FILE) == b"".join(named)
    assert len(b"".join(named)) == len(named)


def test_a_large_file_is_read_in_pieces():
    """Also if the boundary lies across two of them."""
    head = FILE.removesuffix(b"sound")
    for size in range(2 * PIECE - len(head) - 20, 2 * PIECE - len(head) + 4):
        form = read(body(head + b"s" * size, MODEL))

        assert [size] == form.document["file"]
        assert max(map(len, form)) <= PIECE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (body(MODEL, MODEL, FILE), "'model' appears twice"),
        (body(MODEL, FILE, FILE), "'file' appears twice"),
        (body(field("Model"), MODEL, FILE), "similar to 'model'"),
        (body(field("model[]"), MODEL, FILE), "similar to 'model'"),
        (body(MODEL), "'file' is missing"),
        (body(MODEL, field("file", "sound")), "must be a file"),
        (body(MODEL.replace(b'"model"', b'"model"; filename="m"'), FILE), "'model' must be a field"),
        (body(MODEL, FILE.removesuffix(b"sound")), "'file' is empty"),
        (body(MODEL, FILE, end=b""), "cut off"),
        (body(MODEL, FILE)[:-60], "cut off"),
        (body(MODEL, FILE, end=b"--B"), "cut off"),
        (body(MODEL, FILE, end=b"--B-"), "cut off"),
        (body(MODEL, FILE) + b"more", "follows the last boundary"),
        (body(MODEL, FILE, end=b"--B--\r\n\rmore"), "follows the last boundary"),
        (body(MODEL, FILE, end=b"--B--\n\n\nmore"), "follows the last boundary"),
        (b"preamble\r\n" + body(MODEL, FILE), "before the first boundary"),
        (body(MODEL, FILE + b"\n--B\r\n"), "boundary of the form stands where"),
        (body(MODEL, FILE + b"\r\n--Bee"), "boundary of the form stands where"),
        (body(MODEL, FILE) + body(MODEL, FILE), "boundary of the form stands where"),
        (body(MODEL.replace(b"\r\n\r\n", b"\r\n"), FILE), "has no head"),
        (body(MODEL.replace(b"name=", b"name*="), FILE), "Each part of the form needs"),
        (body(MODEL.replace(b'"model"', b'"mod\\el"'), FILE), "Each part of the form needs"),
        (body(MODEL.replace(b'"model"', b'"model"; name="n"'), FILE), "malformed"),
        (body(MODEL, FILE, field("x").replace(b'"x"', b"\"x\"; name*=utf-8''model")), "Each part of the form needs"),
        (body(MODEL, FILE, field("x").replace(b'"x"', b'x; filename="a\\"; name=model; y=\\"b"')), "malformed"),
        (body(MODEL, FILE, b"Content-Type: multipart/mixed; boundary=C\r\n" + field("x")), "cannot be a form"),
        (body(field("_charset_", "utf-16"), MODEL, FILE), "UTF-8"),
        (body(b"Content-Disposition: attachment\r\n" + MODEL, FILE), "one 'Content-Disposition'"),
        (body(b"Content-Transfer-Encoding: base64\r\n" + MODEL, FILE), "Content-Transfer-Encoding"),
        (body(b"Content-Type: text/plain; charset=utf-16\r\n" + MODEL, FILE), "UTF-8"),
        (body(MODEL.replace(b"form-data;", b"form-data;\r\n "), FILE), "malformed"),
        (body(MODEL.replace(b"whisper", b"\xff"), FILE), "'model' is not UTF-8"),
        (body(MODEL, FILE, field("stream", "perhaps")), "'stream' must be true or false"),
        (body(MODEL, FILE, field("n", "1.5")), "'n' must be a whole number"),
        (body(MODEL, FILE, field("prompt", "x" * 200_000)), "'prompt' is longer"),
        (body(*[field("x")] * 300), "more than 200 parts"),
        (b"", "does not contain the boundary"),
        (b"{}", "does not contain the boundary"),
    ],
)
def test_refuses_what_can_be_read_in_two_ways(data, message):
    """And what is cut off; with what to do, and without the content."""
    with pytest.raises(InvalidRequest, match=message):
        read(data)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=B; boundary=C",
        "multipart/form-data; boundary=" + "B" * 71,
        "multipart/form-data; boundary=ä",
    ],
)
def test_refuses_a_header_without_one_boundary(content_type):
    """People set the header themselves, and lose the boundary."""
    with pytest.raises(InvalidRequest, match=r"boundary|malformed"):
        read(body(MODEL, FILE), content_type)
