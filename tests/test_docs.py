"""The pages in ``docs/`` tell the truth: their tables are complete and their links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import get_args

import pytest

from llmgateway import errors
from llmgateway.cli import main
from llmgateway.settings import settings_fields
from llmgateway.simulator import FAULTS, Deployment, Script
from llmgateway.simulator.deployments import Maker
from llmgateway.simulator.scripts import CHOICES
from llmgateway.simulator.usages import UsageForm
from tests import ROOT
from tests.clients.__main__ import anchor as anchor_of
from tests.clients.catalogue import CLIENTS
from tests.pages import PAGES, README, Page
from tests.test_imports import MAY_IMPORT

PACKAGE = ROOT / "llmgateway"


def settings_table() -> str:
    """The settings as the page has to show them."""
    rows = [
        f"| `{field.metadata['variable']}` | {field.metadata['meaning']} | {default_of(field)} |"
        for field in settings_fields()
    ]
    return "\n".join(["| variable | meaning | default |", "|---|---|---|", *rows])


def default_of(field) -> str:
    """The default of one setting as the page shows it."""
    if field.default is MISSING:
        return "required"
    if field.metadata["shown"] or field.default is None:
        return field.metadata["shown"] or "–"  # noqa: RUF001 - the dash of a table
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def test_settings_table_is_complete():
    """Every setting is in the table with its meaning and default, in the order of the code."""
    section = Page("docs/settings.md").section("All settings")

    assert settings_table() in section, f"put this into docs/settings.md:\n{settings_table()}"


def test_endpoints_are_complete(gateway_routes):
    """Every endpoint of the program is in the tables, and no other."""
    rows = re.findall(r"^\| `(\w+ /\S*)` \|", Page("docs/api.md").section("Endpoints"), re.MULTILINE)

    assert sorted(gateway_routes) == sorted(rows)


@pytest.mark.parametrize("page", [README, Page("docs/admin.md")], ids=["README", "admin"])
def test_endpoints_that_pages_mention_exist(page, gateway_routes):
    """A page sends nobody to an endpoint that is not there."""
    mentioned = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`\s?]*)", page.text))

    assert mentioned
    assert [] == [name for name in mentioned if not any(matches(name, route) for route in gateway_routes)]


def matches(mentioned: str, route: str) -> bool:
    """Whether *mentioned* is *route*, or an example of it: ``/admin/groups/ml-2026``."""
    return mentioned == route or bool(re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route)), mentioned))


@pytest.fixture
def gateway_routes(tmp_path) -> set[str]:
    """``METHOD /path`` of everything that the application serves."""
    from llmgateway import create_app
    from llmgateway.settings import Settings

    app = create_app(Settings(admin_key="a" * 24, base_url="http://127.0.0.1:9/openai/v1", instance=tmp_path))
    return {
        f"{method} " + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint != "docs.asset" and not rule.endpoint.startswith("dashboard.")
    }


def test_commands_are_complete():
    """Every command of the program is in the table, and no other."""
    documented = re.findall(r"^\| `llmgateway ([\w-]+)", Page("docs/admin.md").section("Commands"), re.MULTILINE)

    assert sorted(main.commands) == sorted(documented)


def test_subcommands_are_complete():
    """The table names every subcommand of a command."""
    section = Page("docs/admin.md").section("Commands")
    for name, command in main.commands.items():
        (row,) = re.findall(rf"^\| `llmgateway {name}` \|.*", section, re.MULTILINE)
        assert set(getattr(command, "commands", {})) <= set(re.findall(r"`([\w-]+)`", row)), name


def test_errors_are_complete():
    """Every error that a client can get is in the table with its status, and no other."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", Page("docs/api.md").section("Errors"), re.MULTILINE)
    sent = {
        (str(error.status), error.code)
        for error in leaves(errors.GatewayError)
        if error is not errors.ClientGone  # nobody is there any more to read it
    }

    assert sorted(sent) == sorted(rows)


def leaves(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    """The classes of ``errors.py`` below *kind* that no other class there is derived from."""
    for child in vars(errors).values():
        if isinstance(child, type) and kind in child.__bases__:
            below = [*leaves(child)]
            yield from below or [child]


def test_fields_of_scripts_are_complete():
    """The page of the simulator explains every field of a script, and every choice that a field has."""
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", Page("docs/simulator.md").section("Fields of a script"), re.MULTILINE)
    explained = {name: values for names, values in rows for name in re.findall(r"`(\w+)`", names)}

    assert {field.name for field in fields(Script)} == explained.keys()
    for name, choices in [*CHOICES.items(), ("usage", get_args(UsageForm))]:
        if name != "fault":
            assert set(choices) <= set(re.findall(r"`(\w+)`", explained[name])), name


def test_fields_of_simulated_deployments_are_complete():
    """The page of the simulator explains every field of a deployment, and every maker."""
    section = Page("docs/simulator.md").section("Regions, limits and spill-over")
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", section, re.MULTILINE)
    explained = {name: values for names, values in rows for name in re.findall(r"`(\w+)`", names)}

    assert {field.name for field in fields(Deployment)} == explained.keys()
    assert set(get_args(Maker)) == set(re.findall(r"`(\w+)`", explained["maker"]))


def test_faults_are_complete():
    """The page of the simulator explains every error that a script can order, and no other."""
    section = Page("docs/simulator.md").section("Errors that a script can order")
    rows = re.findall(r"^\| (`\w.+?) \|", section, re.MULTILINE)

    assert sorted(FAULTS) == sorted(name for row in rows for name in re.findall(r"`(\w+)`", row) if name != "fault")


def test_metrics_are_complete():
    """Every metric of the program is in the table, and no other."""
    rows = re.findall(r"^\| `(llmgateway_\w+)` \|", Page("docs/operations.md").section("Monitoring"), re.MULTILINE)
    made = re.findall(r'"(llmgateway_\w+)"', (PACKAGE / "usage" / "metrics.py").read_text())

    assert sorted(set(made)) == sorted(rows)


def test_packages_are_complete():
    """The architecture page explains every package and every module at the root, and no other."""
    rows = re.findall(r"^\| (`.+?) \|", Page("docs/architecture.md").section("Packages"), re.MULTILINE)
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row)]

    assert sorted(MAY_IMPORT.keys() - {"__init__", "__main__"}) == sorted(explained)


def test_modules_that_the_architecture_names_exist():
    """Whoever opens a file that the page names finds it."""
    text = Page("docs/architecture.md").text
    named = set(re.findall(r"\b((?:\w+/)*\w+\.py)\b", text)) | set(re.findall(r"\b((?:\w+/)+)(?=[\s`,)]|$)", text))

    assert named
    assert [] == sorted(name for name in named if not any((root / name).exists() for root in (PACKAGE, ROOT)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    """Every link within the repository leads to a file that exists, and to a heading in it."""
    for path, anchor in Page(page.relative_to(ROOT).as_posix()).links():
        assert path.exists(), f"{page.name} links to {path}, which is not there"
        if anchor:
            headings = Page(path.relative_to(ROOT).as_posix()).anchors()
            assert anchor in headings, f"{page.name} links to {path.name}#{anchor}; its headings are {headings}"


def test_readme_leads_to_every_page():
    """A page that nobody is led to is read by nobody."""
    linked = {path for path, _ in README.links()}

    assert set() == set(PAGES) - linked - {README.path}


def test_clients_are_complete():
    """The table has every client of the catalogue in the version that is tried, and leads to how it is set."""
    section = Page("docs/clients.md").section("What was tried")
    rows = re.findall(r"^\| \[([\w.-]+)\]\(#([\w-]+)\) \| (\S+) \|", section, re.MULTILINE)

    expected = [(client.name, anchor_of(client.section), next(iter(client.packages.values()))) for client in CLIENTS]
    assert expected == rows


def test_settings_that_reload_are_named():
    """The page lists all settings that SIGHUP puts into force, and no others."""
    paragraph = (
        Page("docs/settings.md").section("A file of settings").partition("At SIGHUP")[2].partition("The log says")[0]
    )

    expected = {field.metadata["variable"] for field in settings_fields() if field.metadata["reloads"]}
    assert expected == set(re.findall(r"`(\w+)`", paragraph))


def test_calls_with_a_body_say_that_it_is_json():
    """curl calls it a form otherwise, and the gateway refuses that."""
    calls = [
        call
        for page in (README.path, *PAGES)
        for call in re.findall(r"^curl (?:.*\\\n)*.*", page.read_text(), re.MULTILINE)
    ]
    with_body = [call for call in calls if " -d " in call and "/simulator/" not in call]

    assert with_body
    assert [] == [call for call in with_body if "Content-Type: application/json" not in call]
