"""Commands that run a gateway, or the simulated Azure."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import click

from .. import __version__
from ..env_file import ENV_FILE, with_env_file
from ..errors import ConfigurationError
from ..interfaces import UsageLog
from ..settings import MISSING_BASE_URL, Settings, unknown_settings_in
from ..usage.shared_memory import FOLDER, SharedMetrics
from .ending import fail

_HOST = "127.0.0.1"

_WELCOME = """\
LLMGateway {version} is running, with a simulated Azure behind it. Ctrl-C stops it and removes everything.

  base URL    {url}/v1
  user key    {key}
  admin key   {admin_key}
  API pages   {url}/docs
  dashboard   {dashboard}
              This link lets you in once, from this machine, within ten minutes; later the admin key does.

With curl:

  curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
       -H 'Content-Type: application/json' \\
       -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

With Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  for event in client.chat.completions.create(model="{model}", stream=True,
                                              messages=[{{"role": "user", "content": "Hello"}}]):
      print(event.choices[0].delta.content or "", end="", flush=True)
"""


@click.command()
@click.option("--host", help="Address to listen on. [LLMGATEWAY_HOST, 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one. [LLMGATEWAY_PORT, 8080]")
@click.option("--processes", type=int, help="Serving processes. [LLMGATEWAY_PROCESSES, one per two processors]")
@click.option("--threads", type=int, help="Threads of each process. [LLMGATEWAY_THREADS, 128]")
@click.option(
    "--env-file", type=click.Path(), help="File with settings, NAME=VALUE in each line. [LLMGATEWAY_ENV_FILE]"
)
@click.option("--check", is_flag=True, help="Only check the settings; exit status 2 if one is wrong or not known.")
def serve(
    host: str | None, port: int | None, processes: int | None, threads: int | None, env_file: str | None, check: bool
) -> None:
    """Run the gateway, configured from the environment and a file of settings."""
    chosen = {
        "LLMGATEWAY_HOST": host,
        "LLMGATEWAY_PORT": port,
        "LLMGATEWAY_PROCESSES": processes,
        "LLMGATEWAY_THREADS": threads,
        ENV_FILE: env_file,
    }
    environ = dict(os.environ) | {name: str(value) for name, value in chosen.items() if value is not None}
    if check:
        _check(environ)
    else:
        sys.exit(_serve(environ))


@click.command("try")
@click.option(
    "--port", type=int, help="Port of the gateway; 0 takes a free one. [8080, or a free one if that is taken]"
)
@click.option("--demo", is_flag=True, help="Make up three months of traffic, to be looked at in the dashboard.")
def try_(port: int | None, demo: bool) -> None:
    """Run the gateway and a simulated Azure on this machine. Nothing else is needed."""
    from ..app import create_app
    from ..logs import configure_logging
    from ..server.worker import Worker
    from ..simulator import DEFAULT_DEPLOYMENTS, Simulator
    from ..web.context import EXTENSION
    from ..web.dashboard import one_time

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
        configure_logging(settings.log_level, settings.secrets())
        if demo:
            from ..demo import fill

            click.echo("Three months of traffic are being made up …")
            fill(settings, now=time.time())
        app = create_app(settings, serves_alone=True)
        _, key = app.extensions[EXTENSION].keys.create(user="you", name="try")
        url = f"http://{_HOST}:{listener.getsockname()[1]}"
        values = {"version": __version__, "url": url, "key": key, "admin_key": admin_key, "model": models[0]}
        click.echo(_WELCOME.format(**values, dashboard=url + one_time.offer(app, admin_key, clock=time.time)))
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
    unused = {"ADMIN_KEY": "unused"}
    given = {name: value for name, value in os.environ.items() if value.strip()}
    try:
        settings = Settings.from_env(unused | given)
        if not settings.mongo_url and not settings.instance.is_dir():
            fail([f"LLMGATEWAY_INSTANCE: there is no folder {settings.instance.absolute()}."])
        _rebuild_usage(open_stores(settings, clock=time.time).usage_log)
    except ConfigurationError as error:
        fail(error.problems)
    except StoreUnavailable as error:
        fail([str(error)], status=1)


@click.command()
@click.option("--host", default=_HOST, show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8081, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--key", envvar="LLM_API_KEY", help="The key that it accepts. [LLM_API_KEY, a fixed one]")
@click.option("--regions", help="Regions such as eastus2,swedencentral: one resource each, on ports of their own.")
@click.option("--config", type=click.File("rb"), help="JSON file of resources, with their deployments and limits.")
def simulator(host: str, port: int, key: str | None, regions: str | None, config: IO[bytes] | None) -> None:
    """Run the simulated Azure alone: for load tests, demos, teaching."""
    from ..simulator import DEFAULT_DEPLOYMENTS, DEFAULT_KEY, OTHER_DEPLOYMENTS, Simulator
    from ..simulator import serve as serve_simulator

    def started(azure: Simulator) -> None:
        click.echo(f"A simulated Azure listens on {azure.url}. LLM_BASE_URL={azure.url}/openai/v1")
        if not key:
            click.echo(f"It accepts LLM_API_KEY={DEFAULT_KEY}")

    try:
        if regions is None and config is None:
            deployments = (*DEFAULT_DEPLOYMENTS, *OTHER_DEPLOYMENTS)
            serve_simulator(host, port, key=key or DEFAULT_KEY, deployments=deployments, started=started)
        else:
            _simulate_several(host, port, key, regions, config)
    except OSError as error:
        fail([f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port."])


def _simulate_several(host: str, port: int, key: str | None, regions: str | None, config: IO[bytes] | None) -> None:
    from ..simulator import DEFAULT_KEY, Subscription, run
    from ..simulator.regions import key_of

    names = [name.strip() for name in (regions or "").split(",") if name.strip()]
    if bool(names) == bool(config):
        fail(["Give either --regions, with at least one, or --config."])
    try:
        if config is not None:
            subscription = Subscription.from_json(json.load(config), host=host, port=port, remember=1000)
        else:
            subscription = Subscription.of_regions(names, key=key or DEFAULT_KEY, host=host, port=port, remember=1000)
    except (TypeError, ValueError) as error:
        fail([f"--config: {error}."])

    def started() -> None:
        for azure in subscription.resources:
            shown = "" if key or config else f" LLM_API_KEY={key_of(DEFAULT_KEY, azure.region)}"
            click.echo(f"{azure.region}: LLM_BASE_URL={azure.url}/openai/v1{shown}")
        if key and not config:
            click.echo("The key of each is the one given, a hyphen and the region: KEY-eastus2.")

    run(subscription.resources, started=started)


def _check(environ: Mapping[str, str]) -> None:
    """Check all that can be wrong with the settings, without creating, changing or calling anything."""
    try:
        settings = Settings.from_env(environ)
    except ConfigurationError as error:
        fail([*error.problems, *_unknown(environ)])
    os.environ.update(with_env_file(environ))
    problems = [*settings.unknown]
    if settings.base_url is None:
        _warn([MISSING_BASE_URL])  # an admin may have stored one; the stores are not asked, which would create files
    for check in (
        settings.check_instance_folder,
        lambda: _check_way(settings),
        lambda: _check_identity(settings),
    ):
        try:
            check()
        except ConfigurationError as error:
            problems += error.problems
    _warn(warning for warning in settings.warnings() if warning not in problems)
    if problems:
        fail(problems)
    click.echo("The settings are right.")


def _check_way(settings: Settings) -> None:
    """Check that the environment leads to ``LLM_BASE_URL``. Raises ConfigurationError."""
    from ..azure.environment import check_environment

    if settings.endpoint is not None:
        check_environment(settings.endpoint)


def _unknown(environ: Mapping[str, str]) -> Sequence[str]:
    try:
        return unknown_settings_in(with_env_file(environ))
    except ConfigurationError:  # the file cannot be read, which is reported anyway
        return unknown_settings_in(environ)


def _serve(environ: Mapping[str, str]) -> int:
    from ..logs import configure_logging

    try:
        settings = Settings.from_env(environ)
        # requests reads proxies and certificates from the environment of the process.
        os.environ.update(with_env_file(environ))
        # Before anything says that it listens, and once, not in each worker.
        _check_way(settings)
        _check_identity(settings)
        settings.make_instance_folder()
    except ConfigurationError as error:
        fail(error.problems)
    configure_logging(settings.log_level, settings.secrets())
    _warn(settings.warnings())
    # Until the server installs its own handlers. The first process of a container gets no SIGTERM without a
    # handler (signal handling of PID 1, pid_namespaces(7)).
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: sys.exit(0))
    # Until the server can read the settings again. Processes that are forked inherit this.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    with _shared_metrics(settings) as metrics:
        listener = _listen_or_explain(settings.host, settings.port)
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        for line in _facts(settings):
            click.echo(line)
        click.echo(f"LLMGateway {__version__} listens on {url} - API pages: {url}/docs")
        from ..server.reload import CurrentSettings
        from ..server.supervisor import serve

        status = serve(CurrentSettings(settings, environ), listener, metrics)
        click.echo("LLMGateway has stopped.")
        return status


def _check_identity(settings: Settings) -> None:
    if settings.identity is not None:
        settings.identity.check_installed()


def _hosts(url: str) -> str:
    """Return the hosts of a store's URL, or the path of its socket, without user and password."""
    rest = url.partition("://")[2].partition("?")[0].rpartition("@")[2]
    return rest if rest.startswith("/") else rest.partition("/")[0]


def _facts(settings: Settings) -> Iterator[str]:
    """Return what an operator wants to see at the start, a line for each.

    A worker logs what it finds of Azure's key.
    """
    from ..app import RESERVED_THREADS

    mongo, redis = settings.mongo_url, settings.redis_url
    durable = f"MongoDB at {_hosts(mongo)}" if mongo else "SQLite in the instance folder"
    yield f"Stores: {durable}, {f'Redis at {_hosts(redis)}' if redis else 'no Redis'}"
    yield f"Instance folder: {settings.instance.absolute()}"
    # Without the query: an operator may have put a key into it.
    yield f"Upstream: {_upstream(settings)}"
    if settings.identity is not None:
        yield f"Azure's credential: tokens of Microsoft Entra ID, identity: {settings.identity.kind}"
    slots = settings.threads - RESERVED_THREADS
    yield f"Request slots: {settings.processes * slots} ({settings.processes} x {slots})"


def _upstream(settings: Settings) -> str:
    if settings.base_url is None:
        return "the address that an admin has set, or sets on the dashboard; the deployments of the registered models"
    if settings.endpoint is None:
        return "the deployments of the registered models"
    # Without the query: an operator may have put a key into it.
    return settings.base_url.partition("?")[0]


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.secho(f"WARNING: {warning}", err=True, bold=True)


@contextmanager
def _shared_metrics(settings: Settings) -> Iterator[SharedMetrics | None]:
    """Make the memory in which several processes add up their metrics.

    ``prometheus_client`` reads the name of its folder when it is imported, and the server imports it.
    """
    if settings.processes == 1:
        os.environ.pop(FOLDER, None)  # one process adds nothing up, least of all what is left of another one
        yield None
        return
    with closing(SharedMetrics(settings.instance, settings.processes)) as memory:
        os.environ[FOLDER] = str(memory.folder.absolute())
        yield memory


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
