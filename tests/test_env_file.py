"""The file with settings: what its lines mean, and what is said about lines that mean nothing."""

from __future__ import annotations

import pytest

from llmgateway.env_file import parse_env_file, with_env_file
from llmgateway.errors import ConfigurationError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b c  ", "b c"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b=c", "b=c"),
        ("A=pa$$word#1 # no comment", "pa$$word#1 # no comment"),
        ("A='$x \"y\" \\n'", '$x "y" \\n'),
        ('A=" b "', " b "),
        ('A="say \\"hi\\" \\\\ \\$1 \\n"', 'say "hi" \\ $1 \\n'),
        ('A="b" # a comment', "b"),
        ("A='b'# a comment", "b"),
        ("A=b'c", "b'c"),
        ("A=b\r", "b"),
        ("A=1\nA=2", "2"),
        ("# a\n;b\n\nA=é\u2028è\n", "é\u2028è"),
    ],
)
def test_reads_what_docker_and_systemd_read(line, value):
    """Blanks and quotes around a value are removed, comments have their own lines, and nothing is replaced."""
    assert {"A": value} == parse_env_file(line)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\nnonsense secret", "line 2 is not NAME=VALUE"),
        ("A", "line 1 is not NAME=VALUE"),
        ("1A=secret", "line 1 is not NAME=VALUE"),
        ('A="secret', "line 1 has a value of A that begins with a quote"),
        ("A='secret' more", "line 1 has a value of A that begins with a quote"),
        ("A=sec\0ret", "line 1 has a zero byte"),
    ],
)
def test_says_which_line_is_wrong(text, says):
    """The line and the remedy, and never the value."""
    with pytest.raises(ValueError, match=says) as caught:
        parse_env_file(text)
    assert "secret" not in str(caught.value)


def test_the_environment_wins(tmp_path):
    """Unless its variable is blank, or is what Kubernetes sets for a Service."""
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfA=file\nB=file\nC=file\nLLMGATEWAY_PORT=8000\n")
    environ = {"LLMGATEWAY_ENV_FILE": str(file), "A": "own", "B": " ", "LLMGATEWAY_PORT": "tcp://10.0.0.1:80"}

    found = with_env_file(environ)

    assert ("own", "file", "file", "8000") == (found["A"], found["B"], found["C"], found["LLMGATEWAY_PORT"])


def test_says_why_a_file_cannot_be_read(tmp_path, monkeypatch):
    """With its whole path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"A=\xe9")
    for name, says in (("none", "No such file"), (".", "Is a directory"), ("latin", r"not UTF-8 \(byte 3\)")):
        with pytest.raises(ConfigurationError, match=says) as caught:
            with_env_file({"LLMGATEWAY_ENV_FILE": name})
        assert str((tmp_path / name).absolute()) in caught.value.problems[0]
