"""The command line: commands that run a gateway, and commands that call the admin API of a running one."""

from __future__ import annotations

import click

from .. import __version__
from . import bulk, erasure  # noqa: F401 - their commands join keys, groups and users
from .accounts import accounts
from .admins import admins
from .alerts import alerts
from .completion import completion
from .currency import currency
from .doctor import doctor
from .groups import groups
from .keys import keys
from .logs import logs
from .models import models
from .organisation import limits, llm_key, settings
from .prompts import prompt
from .reconciliation import reconcile
from .reports import audit, filters, status, usage
from .sections import Sectioned, dress
from .serving import rebuild_usage, serve, simulator, try_
from .statements import statement
from .users import users


@click.group(cls=Sectioned, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmgateway")
def main() -> None:
    """Lend one Azure OpenAI subscription to many people."""


for _command in (serve, try_, doctor, rebuild_usage, simulator):
    main.add_command(_command)
for _command in (
    completion,
    accounts,
    admins,
    keys,
    groups,
    users,
    limits,
    settings,
    prompt,
    llm_key,
    models,
    usage,
    filters,
    statement,
    currency,
    reconcile,
    logs,
    alerts,
    audit,
    status,
):
    main.add_command(_command)
dress(main)
