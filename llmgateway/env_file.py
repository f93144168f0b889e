"""Reads a file of environment variables, in the form that Docker and systemd read.

``NAME=VALUE`` in each line; lines that begin with ``#`` or ``;`` are comments. Nothing is replaced in a value, so ``$``
and ``#`` need no care: passwords contain them. Quotes around a value are removed, as systemd does (systemd.exec(5),
"EnvironmentFile"); Docker keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .errors import ConfigurationError
from .settings_names import is_set_by_kubernetes

ENV_FILE = "LLMGATEWAY_ENV_FILE"

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.ASCII)
_SINGLE_QUOTED = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPED = re.compile(r'\\(["\\$`])')


def with_env_file(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* with the variables of the file that it names in ``LLMGATEWAY_ENV_FILE``, if it names one.

    A variable that *environ* has itself wins, unless it is blank.

    Raises:
        ConfigurationError: the file cannot be read, or has a line that is not an assignment. No value is quoted.
    """
    path = environ.get(ENV_FILE, "").strip()
    if not path:
        return dict(environ)
    given = {name: text for name, text in environ.items() if text.strip() and not is_set_by_kubernetes(name, text)}
    return read_env_file(Path(path)) | given


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of one file; the last one wins if a name is there twice.

    Raises:
        ConfigurationError: as :func:`with_env_file`.
    """
    where = path.absolute()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError([f"{ENV_FILE}: {where} cannot be read: {error.strerror}."]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{ENV_FILE}: {where} is not UTF-8 (byte {error.start + 1})."]) from None
    try:
        return parse_env_file(text)
    except ValueError as error:
        raise ConfigurationError([f"{ENV_FILE}: {where}, {error}."]) from None


def parse_env_file(text: str) -> dict[str, str]:
    """Return the variables of *text*.

    Raises:
        ValueError: a line is not an assignment; it says which and why.
    """
    variables: dict[str, str] = {}
    # Only at line feeds: str.splitlines() would also divide values at characters like U+2028.
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        try:
            name, value = _assignment(line)
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from None
        variables[name] = value
    return variables


def _assignment(line: str) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        raise ValueError("is not NAME=VALUE: write # in front of a comment")
    name, value = match.groups()
    if "\0" in value:
        raise ValueError(f"has a zero byte in the value of {name}: remove it")
    return name, _unquoted(name, value)


def _unquoted(name: str, value: str) -> str:
    if value[:1] not in ("'", '"'):
        return value
    if match := _SINGLE_QUOTED.fullmatch(value):
        return match[1]
    if match := _DOUBLE_QUOTED.fullmatch(value):
        return _ESCAPED.sub(r"\1", match[1])
    raise ValueError(
        f"has a value of {name} that begins with a quote and does not end with it: quote the whole value, on one line"
    )
