"""What tests leave out because it takes long and changes nothing, in their processes and in gateways that they start.

Each application derives keys from its secrets, which takes 0.1 s of CPU, and nearly all tests have the same secrets.
It also compiles how the address of each of its endpoints is built, and hardly any is.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def derive_once(folder: Path | None = None) -> None:
    """Derive a key from a secret once for this process, or for all that have *folder* in common."""
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


def compile_late() -> None:
    """Compile how the address of an endpoint is built when one is built for the first time."""
    from werkzeug.routing import Rule

    compile_now: Callable[..., Callable[..., Any]] = Rule._compile_builder

    def compile_builder(rule: Rule, append_unknown: bool = True) -> Callable[..., Any]:
        compiled = functools.cache(lambda: compile_now(rule, append_unknown))
        return lambda rule, **values: compiled()(rule, **values)

    setattr(Rule, "_compile_builder", compile_builder)  # noqa: B010 - not ours
