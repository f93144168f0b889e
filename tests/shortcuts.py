"""What tests leave out because it takes long and changes nothing, in their processes and in gateways that they start.

Each application derives keys from its secrets, which takes 0.1 s of CPU, and nearly all tests have the same secrets.
It also compiles how the address of each of its endpoints is built, and hardly any is, and reads the certificates of all
authorities that browsers trust, and no test speaks with a site that has one of theirs.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def leave_out_what_takes_long(folder: Path | None = None) -> None:
    """Do so in this process, and in those that are forked from it.

    Args:
        folder: Where keys are kept that several processes derive.
    """
    _derive_once(folder)
    _compile_late()
    _trust_one()


def _derive_once(folder: Path | None) -> None:
    hashlib.scrypt = functools.lru_cache(hashlib.scrypt if folder is None else _kept_in(folder, hashlib.scrypt))


def _kept_in(folder: Path, function: Callable[..., bytes]) -> Callable[..., bytes]:
    def look_up(*arguments: Any, **named: Any) -> bytes:
        kept = folder / hashlib.sha256(repr((arguments, sorted(named.items()))).encode()).hexdigest()
        with suppress(FileNotFoundError):
            return kept.read_bytes()
        value = function(*arguments, **named)
        written = kept.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with suppress(FileNotFoundError):  # the tests have ended
            written.write_bytes(value)
            written.replace(kept)
        return value

    return look_up


def _compile_late() -> None:
    from werkzeug.routing import Rule

    compile_now: Callable[..., Callable[..., Any]] = Rule._compile_builder

    def compile_builder(rule: Rule, append_unknown: bool = True) -> Callable[..., Any]:
        compiled = functools.cache(lambda: compile_now(rule, append_unknown))
        return lambda rule, **values: compiled()(rule, **values)

    setattr(Rule, "_compile_builder", compile_builder)  # noqa: B010 - not ours


def _trust_one() -> None:
    from llmgateway.azure import adapter

    end = "-----END CERTIFICATE-----\n"
    first, _, _ = Path(adapter.DEFAULT_CA_BUNDLE_PATH).read_text().partition(end)
    descriptor, name = tempfile.mkstemp(prefix="llmgateway-test-", suffix=".pem")
    with open(descriptor, "w") as file:
        file.write(first + end)
    atexit.register(_remove, Path(name), os.getpid())
    setattr(adapter, "DEFAULT_CA_BUNDLE_PATH", name)  # noqa: B010 - not its own


def _remove(file: Path, owner: int) -> None:
    if os.getpid() == owner:
        file.unlink(missing_ok=True)
