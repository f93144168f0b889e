"""Commands for models: their deployments, prices of your own, and what the gateway assumes about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import click

from ..records import MODEL_FIELDS, PRICE_KINDS, UNIT_KINDS, Prices
from ..usage.pricing import list_prices, prices_of_table
from .options import NONE, whole_number
from .remote import Remote, listing, remote, secret_from_terminal

_PRICES = {
    "prompt": "million prompt tokens",
    "cached": "million prompt tokens from Azure's cache; as --prompt if it is not given",
    "completion": "million completion tokens",
    "cache_write": "million prompt tokens that Azure puts into its cache",
    "audio_prompt": "million prompt tokens of audio",
    "audio_completion": "million completion tokens of audio",
    "image": "million prompt tokens of images",
    "minute": "minute of audio that is written down; then its tokens cost nothing",
    "characters": "million characters that are spoken; then tokens cost nothing",
    "per_image": "image that is made; then tokens cost nothing",
}
_ALWAYS_LISTED = ("name", "prompt", "cached", "completion")
_LISTED_IF_SET = (
    *(kind for kind in PRICE_KINDS if kind not in _ALWAYS_LISTED),
    *("long_context", "tiers"),
    *MODEL_FIELDS[1:],
)
_TYPE = click.option(
    "--deployment-type",
    type=click.Choice(["global", "eu", "us", "regional"]),
    default="global",
    show_default=True,
    help="Which list prices: of global deployments, of data zones, or of regions.",
)


@click.group()
def models() -> None:
    """Register models and their deployments, and set prices and limits of your own for them."""


@models.command("list")
@listing
def list_models(gateway: Remote) -> None:
    """List your own settings. Prices are in US dollars per million tokens; `models show` has those of tiers."""
    found = gateway.call("GET", "/models")["items"]
    shown = found if gateway.as_json else [_as_line(model) for model in found]
    others = [name for name in _LISTED_IF_SET if any(name in model for model in shown)]
    gateway.show_all(shown, *_ALWAYS_LISTED, *others)


@models.command("show")
@click.argument("name")
@remote
def show_model(gateway: Remote, name: str) -> None:
    """Show all your own settings of a model, and its deployments, without their keys."""
    _show(gateway, gateway.call("GET", _path(name)))


def _price_options(command: Any) -> Any:
    for kind, meaning in reversed(_PRICES.items()):
        option = f"--{kind.replace('_', '-')}"
        command = click.option(option, type=float, help=f"US dollars per {meaning}.")(command)
    return command


@models.command("set")
@click.argument("name")
@_price_options
@click.option("--like", metavar="MODEL", help="Take the list prices of this model, those of service tiers included.")
@_TYPE
@click.option("--max-output-tokens", type=whole_number, metavar="N|none", help="The most tokens of one answer.")
@click.option("--tokens-per-second", metavar="X|none", help="How fast it writes at most.")
@click.option("--reasoning", type=click.Choice(["yes", "no", NONE]), help="Whether it thinks unseen.")
@remote
def set_model(
    gateway: Remote, name: str, like: str | None, deployment_type: str, reasoning: str | None, **options: Any
) -> None:
    """Set what a model or a deployment costs from now on, and how long its answers can be. What is not named stays."""
    prices = {kind: options.pop(kind) for kind in PRICE_KINDS}
    body: dict[str, Any] = {field: None if value == NONE else value for field, value in options.items() if value}
    if reasoning is not None:
        body["reasoning"] = None if reasoning == NONE else reasoning == "yes"
    if like is not None:
        body["prices"] = _list_prices(like, deployment_type)
    given = {kind: price for kind, price in prices.items() if price is not None}
    if given:
        body["prices"] = body.get("prices", {}) | given
        if not given.keys().isdisjoint(UNIT_KINDS):
            body["prices"] = {"prompt": 0, "completion": 0} | body["prices"]
        body["prices"].setdefault("cached", body["prices"].get("prompt"))
        if missing := [f"--{kind}" for kind in ("prompt", "completion") if kind not in body["prices"]]:
            raise click.UsageError(f"Prices need {' and '.join(missing)}, too, or --like.")
    if not body:
        raise click.UsageError("Nothing to set. Give --prompt and --completion, --like, or another option.")
    _show(gateway, gateway.call("PUT", _path(name), body=body))


@models.command("remove")
@click.argument("name")
@remote
def remove_model(gateway: Remote, name: str) -> None:
    """Remove your own settings of a model, so that its list price applies."""
    gateway.call("DELETE", _path(name))
    gateway.done(f"{name} costs its list price from now on.", {"name": name, "removed": True})


@models.command("deploy")
@click.argument("model")
@click.option("--name", required=True, help="What you want to call the deployment: its region, for example.")
@click.option("--base-url", help="Address of its resource, in any form that the portal shows. Needed for a new one.")
@click.option("--deployment", help="Its name at Azure. [the name of the model]")
@click.option("--api-version", help="For addresses that name the deployment.")
@click.option("--key-from-stdin", is_flag=True, help="Ask for the key of the resource, or read it from standard input.")
@click.option("--identity", is_flag=True, help="Sign in with the identity of the gateway, without a key.")
@click.option("--key-header", type=click.Choice(["api-key", "Authorization", "Ocp-Apim-Subscription-Key"]))
@click.option("--priority", type=click.IntRange(0, 1000), help="The smallest number is asked first. [1]")
@click.option("--weight", type=float, help="Its part of the requests among those with the same priority. [1]")
@click.option("--active/--inactive", default=None, help="Whether it is asked.")
@remote
def deploy(gateway: Remote, model: str, name: str, key_from_stdin: bool, identity: bool, **options: Any) -> None:
    """Register a deployment of MODEL, or change what is named of one. The others of the model stay.

    Without a key of its own, a deployment gets that of LLM_BASE_URL.
    """
    if key_from_stdin and identity:
        raise click.UsageError("Give a key, or choose the identity.")
    given = {field: value for field, value in options.items() if value is not None}
    present = _deployments_of(gateway, model)
    position = _position(present, name)
    if position is None:
        if "base_url" not in given:
            raise click.UsageError(f"{model} has no deployment {name!r} yet: give --base-url.")
        changed = {"name": name, "deployment": model} | given
        present.append(changed)
    else:
        changed = present[position] = present[position] | given
    if identity:
        changed["identity"] = True
    if key_from_stdin:
        changed |= {"identity": False, "key": secret_from_terminal("Key of the resource")}
    _show(gateway, gateway.call("PUT", _path(model), body={"deployments": present}))


@models.command("undeploy")
@click.argument("model")
@click.argument("name")
@remote
def undeploy(gateway: Remote, model: str, name: str) -> None:
    """Remove the deployment NAME of MODEL. Without any, the model is one of LLM_BASE_URL again."""
    present = _deployments_of(gateway, model)
    position = _position(present, name)
    if position is None:
        names = ", ".join(str(each["name"]) for each in present) or "none"
        raise click.BadParameter(f"{model} has no such deployment. It has: {names}.", param_hint="NAME")
    del present[position]
    _show(gateway, gateway.call("PUT", _path(model), body={"deployments": present}))


@models.command("alias")
@click.argument("model")
@click.argument("aliases", nargs=-1)
@click.option("--none", "nothing", is_flag=True, help="Remove all.")
@remote
def alias(gateway: Remote, model: str, aliases: tuple[str, ...], nothing: bool) -> None:
    """Replace the other names of MODEL. A name may contain * for any text: gpt-4o-*."""
    if bool(aliases) == nothing:
        raise click.UsageError("Give at least one name, or --none.")
    _show(gateway, gateway.call("PUT", _path(model), body={"aliases": list(aliases) or None}))


@models.command("import")
@click.argument("base_url")
@click.option("--key-from-stdin", is_flag=True, help="Ask for the key of the resource, or read it from standard input.")
@click.option("--key-header", type=click.Choice(["api-key", "Authorization", "Ocp-Apim-Subscription-Key"]))
@click.option("--api-version", help="For addresses that name the deployment.")
@click.option("--name", help="What to call the deployments. [the name of the resource]")
@click.option("--add", is_flag=True, help="Also add them to models that have other deployments.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@remote
def import_models(gateway: Remote, base_url: str, key_from_stdin: bool, **options: Any) -> None:
    """Register the deployments that the resource at BASE_URL lists, each as a model of its name.

    Models that have deployments already are left alone, unless --add is given.
    """
    body = {"base_url": base_url} | {name: value for name, value in options.items() if value is not None}
    if key_from_stdin:
        body["key"] = secret_from_terminal("Key of the resource")
    answer = gateway.call("POST", "/models/import", body=body)
    if gateway.as_json:
        gateway.show(answer)
    else:
        gateway.show_all(answer["items"], "model", "name", "azure_model", "action")


@models.command("prices")
@click.argument("file", type=click.File("rb"))
@_TYPE
@click.option("--dry-run", is_flag=True, help="Only say which models would change.")
@remote
def set_prices(gateway: Remote, file: IO[bytes], deployment_type: str, dry_run: bool) -> None:
    """Use the list prices in FILE instead of those of this release, for every model in it.

    FILE is a table as `python -m llmgateway.usage.build_prices` writes it. Its prices become prices of your own, which
    the gateway stores: so they hold on all hosts at once, and after an update. `models remove` removes one.
    """
    try:
        table = prices_of_table(json.loads(file.read()), deployment_type)
    except (ValueError, KeyError, TypeError) as error:
        raise click.BadParameter(f"{file.name} is not a table of prices: {error!r}", param_hint="FILE") from error
    present = {model["name"]: model.get("prices") for model in gateway.call("GET", "/models")["items"]}
    spelt = {name.lower(): name for name in present}  # upper and lower case make no difference
    wanted = {spelt.get(name.lower(), name): _sent(prices) for name, prices in table.items()}
    changed = [name for name in sorted(wanted) if _as_numbers(present.get(name)) != _as_numbers(wanted[name])]
    for name in changed if not dry_run else ():
        gateway.call("PUT", _path(name), body={"prices": wanted[name]})
    gateway.show_all([{"name": name, **wanted[name]} for name in changed], *_ALWAYS_LISTED)


def _deployments_of(gateway: Remote, model: str) -> list[dict[str, Any]]:
    """Return the deployments of *model* as they can be sent back: without keys, which then stay."""
    from .client import CallFailed

    try:
        present = gateway.call("GET", _path(model)).get("deployments") or []
    except CallFailed as error:
        if error.status != 404:
            raise
        present = []
    return [{name: value for name, value in each.items() if name != "has_key"} for each in present]


def _position(deployments: list[dict[str, Any]], name: str) -> int | None:
    names = [str(each["name"]).lower() for each in deployments]
    return names.index(name.lower()) if name.lower() in names else None


def _as_line(model: dict[str, Any]) -> dict[str, Any]:
    """Return *model* for a line of a table: of its deployments the names, those that are asked first at the front."""
    cells = model | _as_cells(model.get("prices") or {})
    if deployments := model.get("deployments"):
        ordered = sorted(deployments, key=lambda each: each["priority"])
        cells["deployments"] = [each["name"] if each["active"] else f"({each['name']})" for each in ordered]
    return cells


def _show(gateway: Remote, model: dict[str, Any]) -> None:
    """Print *model*, with a line for each of its deployments."""
    if gateway.as_json or "deployments" not in model:
        gateway.show(model)
        return
    lines = [
        f"{each['name']}: {each['deployment']} at {each['base_url']}, priority {each['priority']}, weight "
        f"{each['weight']:g}, {_credential(each)}{'' if each['active'] else ', not active'}"
        for each in model["deployments"]
    ]
    gateway.show(model | {"deployments": "\n".join(lines)})


def _credential(deployment: Mapping[str, Any]) -> str:
    if deployment["identity"]:
        return "identity"
    return "key of its own" if deployment["has_key"] else "key of LLM_BASE_URL"


def _as_cells(prices: Mapping[str, Any]) -> dict[str, Any]:
    """Return *prices* for a line of a table: of tiers their names, of long prompts where they begin."""
    cells = dict(prices)
    if tiers := cells.get("tiers"):
        cells["tiers"] = sorted(tiers)
    if long_context := cells.get("long_context"):
        cells["long_context"] = f"above {long_context['above']}"
    return cells


def _list_prices(model: str, deployment_type: str) -> dict[str, Any]:
    prices = list_prices(model, deployment_type)
    if prices is None:
        raise click.BadParameter(
            f"No list price of {model!r} is known for this type of deployment.", param_hint="--like"
        )
    return _sent(prices)


def _sent(prices: Prices) -> dict[str, Any]:
    """Return *prices* as the API takes them, which needs three of them.

    Embeddings have no completion, and some models no price of tokens.
    """
    sent = {"prompt": 0, "cached": prices.prompt or 0, "completion": 0, **prices.as_json()}
    if prices.long_context is not None:
        sent["long_context"] = {"above": prices.above, **_sent(prices.long_context)}
    if prices.tiers:
        sent["tiers"] = {name: _sent(tier) for name, tier in prices.tiers.items()}
    return sent


def _as_numbers(prices: Mapping[str, Any] | None) -> Any:
    return None if prices is None else json.loads(json.dumps(prices), parse_int=float)


def _path(name: str) -> str:
    from .client import part

    return f"/models/{part(name)}"
