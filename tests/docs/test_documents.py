"""What the documents say is what the code does; both READMEs say the same."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any, get_args
from urllib.parse import quote

import click
import psycopg
import pytest
from dotenv import dotenv_values
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from dev.benchmarks.__main__ import PARTS
from dev.simulation.__main__ import plans
from dev.simulation.invariants import Rule
from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.diagnosis import command as diagnosis
from rdservice.diagnosis.findings import verdict
from rdservice.diagnosis.report import report_file
from rdservice.metrics.definitions import OPERATIONS
from rdservice.services import Services
from rdservice.tokens import workers
from rdservice.web.http import guard
from tests.support.accounts import connect_account
from tests.support.command_line import app_with_commands
from tests.support.documents import (
    ROOT,
    assert_same_structure,
    code_blocks,
    headings,
    prose,
    read,
    section,
    table,
    table_rows,
    table_with,
)
from tests.support.error_codes import error_codes
from tests.support.sandbox_process import SandboxProcess

READMES = ["README.md", "README.pt-BR.md"]
RUNBOOKS = ["docs/runbook.md", "docs/runbook.pt-BR.md"]
PROVING = ["docs/proving.md", "docs/proving.pt-BR.md"]
GUIDES = [
    [f"docs/{name}.md", f"docs/{name}.pt-BR.md"]
    for name in ("commands", "connect", "deploy", "moving", "proving")
]
DOCUMENTS = [*READMES, *RUNBOOKS, *chain(*GUIDES), "CHANGELOG.md", "SECURITY.md"]
# They are read from the environment alone: the one is Heroku's, the other says where to find settings.
NOT_IN_DOTENV = {"DYNO", "RDSERVICE_DATA_DIR"}
# Flask's own commands.
FLASKS_COMMANDS = {"run", "shell", "routes"}

readme = pytest.mark.parametrize("name", READMES)
runbook = pytest.mark.parametrize("name", RUNBOOKS)
proving = pytest.mark.parametrize("name", PROVING)


def names_in(file: str, pattern: str) -> set[str]:
    """Return the string constants of a Python file that match `pattern` as a whole."""
    constants = (node.value for node in ast.walk(ast.parse(read(file))) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and re.fullmatch(pattern, value)}


def variables() -> set[str]:
    """Return the names of all environment variables that the settings know."""
    found = names_in("rdservice/config/settings.py", r"[A-Z]{4,}(_[A-Z]+)*")
    assert {"RDSTATION_CLIENT_ID", "DATABASE_URL", "TRUSTED_PROXIES", "RDSERVICE_ENV", "DYNO"} <= found
    return found


@pytest.mark.parametrize("names", [READMES, RUNBOOKS, *GUIDES])
def test_both_languages_have_the_same_structure(names: list[str]) -> None:
    assert_same_structure(*map(read, names))


@readme
def test_the_two_commands_come_first(name: str) -> None:
    language, contents = code_blocks(read(name))[0]
    assert (language, contents.splitlines()) == ("sh", ["scripts/start", "scripts/test"])
    for command in contents.splitlines():
        assert os.access(ROOT / command, os.X_OK)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", prose(read(name)))
    for link in links:
        assert link.startswith("https://") or (ROOT / name).parent.joinpath(link).is_file(), link
    assert links or name == "SECURITY.md"


@readme
def test_every_setting_is_in_the_readme_with_its_default(name: str) -> None:
    rows = table(read(name))
    assert variables() <= rows.keys()
    settings = Settings.from_mapping(
        {
            "RDSTATION_CLIENT_ID": "id",
            "RDSTATION_CLIENT_SECRET": "secret",
            "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
            "DATABASE_URL": "postgres://user:password@host:5432/database",
            "SECRET_KEY": "0" * 32,
            "TOKEN_ENCRYPTION_KEYS": "0" * 64,
        }
    )
    defaults = {
        "RDSTATION_CACHE_TTL": settings.cache_ttl_s,
        "RDSTATION_API_URL": settings.api_url,
        "RDSTATION_SCOPE": settings.scope,
        "RDSTATION_RATE_LIMIT": settings.rate_limit,
        "TRUSTED_PROXIES": settings.trusted_proxies,
    }
    for variable, default in defaults.items():
        assert rows[variable][0].startswith(f"`{default}`"), variable


def test_the_example_file_has_exactly_the_known_variables_and_no_value() -> None:
    values = dotenv_values(ROOT / ".env.example", interpolate=False)
    assert values.keys() == variables() - NOT_IN_DOTENV
    assert set(values.values()) == {""}


@readme
def test_every_error_code_is_in_the_readme_with_its_status(name: str) -> None:
    [errors] = [rows for text in _sections(name) if "internal_error" in (rows := table(text))]
    assert errors.keys() == error_codes().keys()
    for code, statuses in error_codes().items():
        status, advice = errors[code]
        assert {int(number) for number in re.findall(r"\b\d{3}\b", status)} == statuses, code
        assert len(advice) > 10


@readme
def test_every_state_and_last_error_is_explained(name: str) -> None:
    words = {
        key.value
        for node in ast.walk(ast.parse(read("rdservice/web/text/status_texts.py")))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    assert {"connected", "expired", "revoked", "upload_refused"} <= words
    for word in words:
        assert f"`{word}`" in read(name), word
    status, last_error = (
        json.loads((ROOT / "rdservice/web/api/openapi.json").read_text())["components"]["schemas"][schema][
            "enum"
        ]
        for schema in ("Status", "LastError")
    )
    assert table_with(read(name), "expired").keys() == set(status)
    assert table_with(read(name), "answer_lost").keys() == set(filter(None, last_error))
    assert {*status, *filter(None, last_error)} <= words


def _sections(name: str) -> Iterator[str]:
    text = prose(read(name))
    return (section(text, number) for number in range(len(headings(text))))


@pytest.fixture
def app(connected: Services) -> Flask:
    return app_with_commands(connected)


@readme
def test_every_command_is_in_the_readme_and_no_other(name: str, app: Flask) -> None:
    offered = set()
    for command in app.cli.commands.values():
        if isinstance(command, click.Group):
            offered |= {f"{command.name} {sub}" for sub in command.commands}
        elif command.name not in FLASKS_COMMANDS:
            offered.add(str(command.name))
    rows = [re.fullmatch(r"`flask (.+)`", row[0]) for row in table_rows(read(name))]
    listed = {re.sub(r" (--)?[A-Z].*| --.*", "", row[1]) for row in rows if row}
    assert listed == offered


@runbook
def test_the_readme_leads_to_the_runbook_of_its_language(name: str) -> None:
    assert f"]({name})" in read(READMES[RUNBOOKS.index(name)])


@runbook
def test_each_situation_of_the_runbook_says_what_is_seen_what_the_service_does_and_what_to_do(
    name: str,
) -> None:
    # What stands under an alert is the matter of tests/monitoring.
    text = re.split(r"^## Alert", prose(read(name)), flags=re.MULTILINE)[0]
    situations = [number for number, heading in enumerate(headings(text)) if heading.startswith("### ")]
    assert len(situations) > 10
    asked = {"docs/runbook.md": ["You see", "The service", "You"]}.get(name, ["Você vê", "O serviço", "Você"])
    for number in situations:
        assert re.findall(r"^- \*\*(.+?)\*\*: ", section(text, number), re.MULTILINE) == asked


@runbook
def test_the_runbook_names_what_there_is(name: str, app: Flask) -> None:
    text = read(name)
    lines = [line for _, block in code_blocks(text) for line in block.splitlines()]
    for words in map(shlex.split, lines):
        if words[0] == "flask":
            group: click.Command = app.cli
            command = words[1:]
            while isinstance(group, click.Group):
                group = group.commands[command.pop(0)]
        elif words[0] == "python3":
            assert (ROOT / words[1]).is_file()
        else:
            assert words[0] in ("pg_dump", "pg_restore", "psql")
    told = re.findall(r"\b(\d{3}) `(\w+)`", text)
    assert len(told) > 5
    for status, code in told:
        assert int(status) in error_codes()[code]
    schemas = json.loads(read("rdservice/web/api/openapi.json"))["components"]["schemas"]
    known = {*schemas["Status"]["enum"], *filter(None, schemas["LastError"]["enum"]), *error_codes()}
    known |= {*verdict.ORDER, *OPERATIONS, "stale", "page_size", "request_id"}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))
    assert named - {"max_connections", "rdstation_tokens", "rdservice"} <= known
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", text)) <= variables()
    alerts = re.findall(r"- alert: (\w+)", read("monitoring/rules/rdservice.yml"))
    assert set(re.findall(r"`(RDStation\w+)`", text)) <= set(alerts)


@proving
def test_scripts_faults_runs_by_the_lines_of_its_guide(name: str) -> None:
    [lines] = [block.splitlines() for _, block in code_blocks(read(name)) if "scripts/faults" in block]
    assert [line for line in lines if "--" in line] == ["scripts/faults --list"]
    known = set()
    for file in (ROOT / "tests" / "e2e").glob("test_*.py"):
        known |= set(re.findall(r'mark\.fault\(\s*"([^"]+)"', file.read_text()))
    for line in lines:
        program, *chosen = shlex.split(line)
        assert os.access(ROOT / program, os.X_OK)
        for begin in set(chosen) - {"--list"}:
            assert any(fault.startswith(begin) for fault in known), begin


@readme
def test_the_scopes_for_keys_are_those_that_routes_need(name: str, app: Flask) -> None:
    needed = {getattr(view, guard._DECLARATION).scope for view in app.view_functions.values()} - {None}
    sentence = re.search(r"^(Scopes for keys|Escopos de chaves).*?\.\n", read(name), re.MULTILINE | re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+:\w+)`", sentence[0])) == needed
    # Where a route is described its scope is named.
    assert set(re.findall(r"^(?:Scope|Escopo) `(\S+)`\.", read(name), re.MULTILINE)) == needed


@readme
def test_every_metric_is_in_the_readme_with_its_type_and_labels_and_no_other(
    name: str, app: Flask, services: Services, conn: psycopg.Connection[Any]
) -> None:
    connect_account(services)
    workers.beat(conn, "a-worker")
    client = app.test_client()
    client.get("/healthz")
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }
    rows = table_with(read(name), "rdstation_database_up")
    assert {metric: (row[0], set(re.findall(r"`(\w+)`", row[1]))) for metric, row in rows.items()} == exported


@readme
def test_every_finding_is_in_the_readme_in_the_order_in_which_they_are_shown(name: str) -> None:
    assert list(table_with(read(name), "settings_broken")) == list(verdict.ORDER)


@readme
def test_the_diagnosis_s_options_exit_statuses_and_file_are_in_the_readme(name: str) -> None:
    actions = [action for action in diagnosis._parser()._actions if "--help" not in action.option_strings]
    options = {
        f"{action.option_strings[0]} {action.metavar}" if action.nargs is None else action.option_strings[0]
        for action in actions
    }
    text = read(name)
    assert table_with(text, "--no-refresh").keys() == options
    statuses = [int(row[0]) for row in table_rows(prose(text)) if row[0].isdigit()]
    assert statuses == [diagnosis.EXIT_WELL, diagnosis.EXIT_NEEDS_A_PERSON, diagnosis.EXIT_COULD_NOT_RUN]
    assert f"`{report_file.NAME}`" in text
    assert report_file.MODE == 0o600


def test_the_diagnosis_runs_by_the_line_of_the_readme(variables: dict[str, str], tmp_path: Path) -> None:
    [line] = [block for _, block in code_blocks(read("README.md")) if "debug_rdstation" in block]
    program, script = shlex.split(line)
    assert program == "python3"
    done = subprocess.run(
        [sys.executable, str(ROOT / script)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "RDSERVICE_DATA_DIR": str(tmp_path)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == diagnosis.EXIT_NEEDS_A_PERSON, done.stderr
    written = json.loads((tmp_path / report_file.NAME).read_text())
    assert "no_account" in {finding["code"] for finding in written["verdict"]["findings"]}


@readme
def test_every_part_of_the_benchmark_is_in_the_readme(name: str) -> None:
    text = read(name)
    assert list(table_with(text, "access-token")) == list(PARTS)
    [lines] = [block.splitlines() for _, block in code_blocks(text) if "scripts/bench" in block]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert os.access(ROOT / program, os.X_OK)
        assert {word for word in arguments if not word.startswith("--")} <= PARTS.keys()


@proving
def test_every_rule_of_the_simulation_is_in_its_guide(name: str) -> None:
    text = read(name)
    assert list(table_with(text, "lapse")) == list(get_args(Rule))
    [lines] = [block.splitlines() for _, block in code_blocks(text) if "scripts/simulate" in block]
    assert os.access(ROOT / "scripts/simulate", os.X_OK)
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "scripts/simulate"
        assert plans(arguments)


class Terminal:
    """A shell in which the README's lines are pasted: the `eval` lines are run, and curl's go to the application."""

    def __init__(self, app: Flask, folder: Path, environment: dict[str, str]) -> None:
        self.client = app.test_client()
        self.folder = folder
        self.environment = environment
        self.variables: dict[str, str] = {}

    def paste(self, line: str) -> TestResponse | None:
        piped = re.fullmatch(r'eval "\$\((curl .*?) \| (.*)', line)
        if piped:
            answer = self._curl(piped[1])
            assert answer.status_code == 200, answer.text
            self._set_variables(f'eval "$({piped[2]}', answer.text)
            return None
        if line.startswith("eval "):
            self._set_variables(line)
            return None
        return self._curl(line)

    def _curl(self, line: str) -> TestResponse:
        program, *words = (Template(word).substitute(self.variables) for word in shlex.split(line))
        assert program == "curl", line
        method, headers, body, url, query = "GET", {}, None, "", ""
        while words:
            word = words.pop(0)
            if word == "-X":
                method = words.pop(0)
            elif word == "-H":
                header, _, value = words.pop(0).partition(": ")
                headers[header] = value
            elif word == "-d":
                body = words.pop(0)
            elif word == "--data-urlencode":
                parameter, _, value = words.pop(0).partition("=")
                query = f"?{parameter}={quote(value, safe='')}"
            elif word not in ("-i", "-s", "-G"):
                assert (url, word[:1] == "-") == ("", False), f"{word} of {line}"
                url = word
        assert (query != "") == (" -G " in line), line
        path = url.removeprefix(self.variables["URL"])
        assert path.startswith("/"), line
        return self.client.open(path + query, method=method, headers={"Accept": "*/*"} | headers, data=body)

    def _set_variables(self, line: str, given: str = "") -> None:
        names = ("URL", "KEY", "ACCESS_TOKEN", "REFRESH_TOKEN", "UUID", "EMAIL")
        shown = " ".join(f'"{name}=${name}"' for name in names)
        done = subprocess.run(
            ["sh", "-c", f'{line}\nprintf "%s\\n" {shown}'],
            cwd=self.folder,
            env=self.environment | self.variables,
            input=given,
            check=True,
            capture_output=True,
            text=True,
        )
        self.variables |= dict(entry.split("=", 1) for entry in done.stdout.splitlines())


@pytest.fixture
def terminal(
    app: Flask, variables_of_sandbox: dict[str, str], conn: psycopg.Connection[Any], tmp_path: Path
) -> Terminal:
    """A terminal in a folder like that in which scripts/start is running."""
    credentials = {
        "url": "http://localhost:8000",
        "email": "operator@example.com",
        "password": "password",
        "api_key": keys.create(conn, "a program", list(keys.SCOPES), created_by="test"),
        "sandbox_url": variables_of_sandbox["RDSTATION_API_URL"],
        "database_url": variables_of_sandbox["DATABASE_URL"],
    }
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "demo-credentials.json").write_text(json.dumps(credentials))
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    return Terminal(
        app, tmp_path, {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables_of_sandbox
    )


@pytest.fixture
def variables_of_sandbox(variables: dict[str, str], sandbox: SandboxProcess) -> dict[str, str]:
    return variables | {"RDSTATION_API_URL": sandbox.url}


def test_the_lines_of_the_http_api_work_when_pasted_one_after_the_other(
    terminal: Terminal, conn: psycopg.Connection[Any]
) -> None:
    text = read("README.md")
    api = text[text.index("\n## HTTP API") : text.index("\n### Alerts")]
    lines = [line for language, block in code_blocks(api) if language == "sh" for line in block.splitlines()]
    answers = [answer for answer in map(terminal.paste, lines) if answer is not None]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    called = [(answer.request.method, answer.request.path) for answer in answers]
    assert called == [
        ("POST", "/rd/tokens"),
        ("GET", "/rd/tokens"),
        ("GET", "/rd/tokens/default/access-token"),
        ("GET", "/rd/segmentations"),
        *[("GET", "/rd/leads")] * 3,
        ("GET", f"/rd/leads/{terminal.variables['UUID']}"),
        ("GET", f"/rd/leads/email/{terminal.variables['EMAIL']}"),
        ("POST", "/rd/leads/lookup"),
        *[("GET", "/rd/leads/export")] * 2,
        ("GET", "/rd/leads"),
        ("POST", "/rd/tokens/default/subscribe"),
        ("GET", "/rd/events"),
        ("GET", "/rd/api/platform/contacts/fields"),
        ("POST", "/rd/api/platform/events"),
        ("PATCH", "/rd/api/platform/contacts/email:nova@example.com"),
        ("POST", "/rd/privacy/erase"),
        ("POST", "/rd/tokens/default/refresh"),
        ("DELETE", "/rd/tokens/default"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
    ]
    of_all, chosen, named, of_now = (answer for answer in answers if answer.request.path == "/rd/leads")
    assert [len(answer.get_json()["contacts"]) for answer in (of_all, chosen)] == [25, 50]
    assert of_all.get_json() == named.get_json() == of_now.get_json()
    one, by_email, looked_up = (
        answer.get_json()
        for answer in answers
        if answer.request.path.startswith("/rd/leads/") and answer.mimetype == "application/json"
    )
    assert one["uuid"] == terminal.variables["UUID"]
    assert one == by_email == looked_up
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)


def test_the_lines_that_delete_an_account_s_row_work_when_pasted(
    terminal: Terminal, conn: psycopg.Connection[Any]
) -> None:
    blocks = code_blocks(read("README.md"))
    [statement] = [block for language, block in blocks if language == "sql"]
    [line] = [block for _, block in blocks if "DELETE FROM" in block and block != statement]
    for delete in ("sql", "line"):
        conn.execute(
            "INSERT INTO rdstation_tokens (account_id, access_token, refresh_token, expires_at)"
            " VALUES ('default', '', '', rd_now()), ('other', '', '', rd_now()) ON CONFLICT DO NOTHING"
        )
        if delete == "sql":
            conn.execute(statement.encode())
        else:
            subprocess.run(["sh", "-c", line], cwd=terminal.folder, env=terminal.environment, check=True)
        assert conn.execute("SELECT account_id FROM rdstation_tokens").fetchall() == [("other",)]


def test_the_sandbox_is_told_to_fail_by_the_lines_of_the_readme(sandbox: SandboxProcess) -> None:
    lines = [line for _, block in code_blocks(read("README.md")) for line in block.splitlines()]
    calls = [shlex.split(line) for line in lines if "$SANDBOX/_sandbox" in line]
    assert len(calls) == 4
    for words in calls:
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        [path] = [word.removeprefix("$SANDBOX/_sandbox") for word in words if word.startswith("$SANDBOX/")]
        sandbox._control(method, path, json.loads(words[-1]) if "-d" in words else None)
