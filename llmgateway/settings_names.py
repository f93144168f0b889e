"""Finds settings in the environment whose names are not known: most are typing errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

_PREFIX = re.compile(r"LLM_?(?:GATEWAY_?)?")
_LOOKS_LIKE_OURS = re.compile(r"LLM_?GATEWAY.+", re.IGNORECASE)

# LLMGATEWAY_URL is for the commands that call a gateway, LLMGATEWAY_TEST_* for tests. Kubernetes sets the others in
# every container for a Service named llmgateway, or llmgateway-SOMETHING ("Environment variables" in
# https://kubernetes.io/docs/concepts/services-networking/service/).
_FOR_OTHERS = re.compile(
    r"LLMGATEWAY_(?:URL|TEST_.*|(?:.*_)?SERVICE_(?:HOST|PORT).*|SERVICE_.*|PORT_.*|.+_PORT_\d+_(?:TCP|UDP|SCTP).*)"
)
_SERVICE_URL = re.compile(r"(?:tcp|udp|sctp)://")


def is_set_by_kubernetes(variable: str, text: str) -> bool:
    """Whether this is the address of a Service, and not a setting: ``LLMGATEWAY_PORT=tcp://10.0.0.1:8080``."""
    return variable.startswith("LLMGATEWAY_") and variable.endswith("_PORT") and bool(_SERVICE_URL.match(text))


def unknown_settings(environ: Mapping[str, str], known: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each variable that looks like a setting of ours and is none.

    Args:
        known: The names of all settings.
    """
    return tuple(
        f"{name} is not a setting, and is ignored. {_remedy(name, known)}"
        for name, text in sorted(environ.items())
        if _LOOKS_LIKE_OURS.fullmatch(name)
        and name not in known
        and text.strip()
        and not _FOR_OTHERS.fullmatch(name)
        and not is_set_by_kubernetes(name, text)
    )


def _remedy(name: str, known: Collection[str]) -> str:
    # Without the prefix, which all have in common.
    rests = {_PREFIX.sub("", one): one for one in known}
    near = get_close_matches(_PREFIX.sub("", name.upper()), rests, n=1, cutoff=0.5)
    return f"Did you mean {rests[near[0]]}?" if near else "docs/settings.md lists all settings; remove this one."
