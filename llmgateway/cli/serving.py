"""Commands that run a gateway, or the simulated Azure."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from .. import __version__
from ..errors import ConfigurationError
from ..interfaces import UsageLog
from ..settings import Settings
from .ending import fail

_HOST = "127.0.0.1"
_SHARED_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - mkdtemp() makes a private folder

_WELCOME = """\
LLMGateway {version} is running, with a simulated Azure behind it. Ctrl-C stops it and removes everything.

  base URL    {url}/v1
  user key    {key}
  admin key   {admin_key}
  API pages   {url}/docs

With curl:

  curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
       -H 'Content-Type: application/json' \\
       -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

With Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  for event in client.chat.completions.create(model="{model}", stream=True,
                                              messages=[{{"role": "user", "content": "Hello"}}]):
      print(event.choices[0].delta.content or "" if event.choices else "", end="", flush=True)
"""


@click.command()
@click.option("--host", help="Address to listen on. [LLMGATEWAY_HOST, 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one. [LLMGATEWAY_PORT, 8080]")
@click.option("--processes", type=int, help="Serving processes. [LLMGATEWAY_PROCESSES, one per two processors]")
@click.option("--threads", type=int, help="Threads of each process. [LLMGATEWAY_THREADS, 128]")
def serve(host: str | None, port: int | None, processes: int | None, threads: int | None) -> None:
    """Run the gateway, configured from the environment."""
    chosen = {
        "LLMGATEWAY_HOST": host,
        "LLMGATEWAY_PORT": port,
        "LLMGATEWAY_PROCESSES": processes,
        "LLMGATEWAY_THREADS": threads,
    }
    environ = dict(os.environ) | {name: str(value) for name, value in chosen.items() if value is not None}
    sys.exit(_serve(environ))


@click.command("try")
@click.option(
    "--port", type=int, help="Port of the gateway; 0 takes a free one. [8080, or a free one if that is taken]"
)
def try_(port: int | None) -> None:
    """Run the gateway and a simulated Azure on this machine. Nothing else is needed."""
    from ..app import create_app
    from ..logs import configure_logging
    from ..server.worker import Worker
    from ..simulator import DEFAULT_DEPLOYMENTS, Simulator
    from ..web.context import EXTENSION

    listener = _listen_somewhere() if port is None else _listen_or_explain(_HOST, port)
    admin_key, azure_key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    models = DEFAULT_DEPLOYMENTS
    with tempfile.TemporaryDirectory(prefix="llmgateway-") as folder, Simulator(key=azure_key) as azure:
        settings = Settings.from_env(
            {
                "ADMIN_KEY": admin_key,
                "LLM_BASE_URL": f"{azure.url}/openai/v1",
                "LLM_API_KEY": azure_key,
                "LLMGATEWAY_MODELS": ",".join(models),
                "LLMGATEWAY_INSTANCE": str(Path(folder) / "instance"),
                "LLMGATEWAY_PROCESSES": "1",
                # At Ctrl-C the program should end at once.
                "LLMGATEWAY_DRAIN_SECONDS": "1",
                "LLMGATEWAY_LOG_LEVEL": "WARNING",
            }
        )
        configure_logging(settings.log_level, _secrets_of(settings))
        app = create_app(settings, serves_alone=True)
        _, key = app.extensions[EXTENSION].keys.create(user="you", name="try")
        url = f"http://{_HOST}:{listener.getsockname()[1]}"
        click.echo(_WELCOME.format(version=__version__, url=url, key=key, admin_key=admin_key, model=models[0]))
        # A terminal that is closed ends it as Ctrl-C does, or the folder would stay.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        Worker(app, settings, listener).run()


@click.command("rebuild-usage")
def rebuild_usage() -> None:
    """Count the sums in reports again from the usage log.

    This is safe while gateways run: a record that comes meanwhile waits, or is counted. Only the
    settings of the stores are needed.
    """
    from ..errors import StoreUnavailable
    from ..stores import open_stores

    # Settings that a gateway needs and this command does not; whoever runs it may not have them.
    unused = {"ADMIN_KEY": "unused", "LLM_BASE_URL": "https://unused.invalid/openai/v1"}
    given = {name: value for name, value in os.environ.items() if value.strip()}
    try:
        settings = Settings.from_env(unused | given)
        if not settings.mongo_url and not settings.instance.is_dir():
            fail([f"LLMGATEWAY_INSTANCE: there is no folder {settings.instance}."])
        _rebuild_usage(open_stores(settings, clock=time.time).usage_log)
    except ConfigurationError as error:
        fail(error.problems)
    except StoreUnavailable as error:
        fail([str(error)], status=1)


@click.command()
@click.option("--host", default=_HOST, show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8081, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--key", envvar="LLM_API_KEY", help="The key that it accepts. [LLM_API_KEY, a fixed one]")
def simulator(host: str, port: int, key: str | None) -> None:
    """Run the simulated Azure alone: for load tests, demos, teaching."""
    from ..simulator import DEFAULT_KEY, Simulator
    from ..simulator import serve as serve_simulator

    def started(azure: Simulator) -> None:
        click.echo(f"A simulated Azure listens on {azure.url}. LLM_BASE_URL={azure.url}/openai/v1")
        if not key:
            click.echo(f"It accepts LLM_API_KEY={DEFAULT_KEY}")

    try:
        serve_simulator(host, port, key=key or DEFAULT_KEY, started=started)
    except OSError as error:
        fail([f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port."])


def _serve(environ: Mapping[str, str]) -> int:
    from ..logs import configure_logging

    try:
        settings = Settings.from_env(environ)
        settings.make_instance_folder()  # before anything says that it listens
    except ConfigurationError as error:
        fail(error.problems)
    configure_logging(settings.log_level, _secrets_of(settings))
    for warning in settings.warnings():
        click.secho(f"WARNING: {warning}", err=True, bold=True)
    # Until the server installs its own handlers. The first process of a container gets no SIGTERM without a
    # handler (signal handling of PID 1, pid_namespaces(7)).
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # A terminal that is closed ends nothing: whoever runs a service says so with SIGTERM. Workers inherit this.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _shared_metrics(settings):
        listener = _listen_or_explain(settings.host, settings.port)
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        click.echo(f"LLMGateway {__version__} listens on {url} - API pages: {url}/docs")
        from ..server.supervisor import serve

        return serve(settings, listener)


@contextmanager
def _shared_metrics(settings: Settings) -> Iterator[None]:
    """Create the folder in which several processes add up their metrics.

    ``prometheus_client`` reads its name when it is imported, and the server imports it. The folder is in
    memory if the system has such a file system: its files are mapped into memory, and a full disk would
    end the process with SIGBUS.
    """
    if settings.processes == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="llmgateway-metrics-", dir=_SHARED_MEMORY) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _rebuild_usage(usage_log: UsageLog) -> None:
    steps = usage_log.rebuild()
    plan = next(steps)
    with click.progressbar(length=plan.days, label="Counting days", file=sys.stderr) as bar:
        for _ in steps:
            bar.update(1)
    click.echo(f"The sums of {plan.days} days were counted again from the usage log.")
    if plan.kept_before:
        click.echo(f"Days before {plan.kept_before} were not changed, because their single records have been removed.")


def _listen_somewhere() -> socket.socket:
    from ..server.supervisor import listen

    try:
        return listen(_HOST, 8080)
    except ConfigurationError:
        return listen(_HOST, 0)


def _listen_or_explain(host: str, port: int) -> socket.socket:
    from ..server.supervisor import listen

    try:
        return listen(host, port)
    except ConfigurationError as error:
        fail(error.problems)


def _secrets_of(settings: Settings) -> list[str]:
    from ..settings import settings_fields

    values = [getattr(settings, field.name) for field in settings_fields() if field.metadata["secret"]]
    return [value for value in values if value]
