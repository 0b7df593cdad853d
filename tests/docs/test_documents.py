"""What the documents say is what the code does; both languages say the same."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any, get_args
from urllib.parse import quote

import click
import psycopg
import pytest
from dotenv import dotenv_values
from flask import Flask
from werkzeug.test import TestResponse

from dev.benchmarks.__main__ import PARTS
from dev.documents.tables import NOT_IN_DOTENV, REQUIRED, error_statuses
from dev.simulation.__main__ import plans
from dev.simulation.records import Rule
from rdservice.access import keys
from rdservice.diagnosis import command as diagnosis
from rdservice.diagnosis.findings import verdict
from rdservice.diagnosis.report import report_file
from rdservice.metrics.definitions import OPERATIONS
from rdservice.services import Services
from rdservice.tokens import store
from rdservice.web.api import openapi
from rdservice.web.http import guard
from tests.support.command_line import app_with_commands
from tests.support.documents import (
    LANGUAGES,
    READMES,
    ROOT,
    assert_same_structure,
    code_blocks,
    headings,
    page,
    prose,
    read,
    section,
    table_rows,
    table_with,
)
from tests.support.sandbox_process import SandboxProcess

PAGES = sorted(
    file.relative_to(ROOT / "docs" / "en").with_suffix("").as_posix()
    for file in (ROOT / "docs" / "en").rglob("*.md")
)
# The links between pages are checked by the build of the site: tests/docs/test_site.py.
OUTSIDE_THE_SITE = [*READMES.values(), "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
LONGEST_README = 200

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)


def shell_lines(text: str) -> list[str]:
    return [line for language, block in code_blocks(text) if language == "sh" for line in block.splitlines()]


def variables() -> set[str]:
    """Return the names of all environment variables that the settings know."""
    folder = ROOT / "rdservice"
    files = [*folder.glob("settings*.py"), *folder.glob("notify_urls.py"), *folder.glob("config/*.py")]
    constants = {
        node.value
        for file in files
        for node in ast.walk(ast.parse(read(file)))
        if isinstance(node, ast.Constant)
    }
    words = {value for value in constants if isinstance(value, str)}
    found = {word for word in words if re.fullmatch(r"[A-Z]{4,}(_[A-Z]+)*", word)}
    assert {"RDSTATION_CLIENT_ID", "DATABASE_URL", "TRUSTED_PROXIES", "RDSERVICE_ENV", "DYNO"} <= found
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_same_structure_in_both_languages(name: str) -> None:
    assert_same_structure(page("en", name), page("pt-BR", name))


def test_both_languages_have_the_same_pages() -> None:
    portuguese = ROOT / "docs" / "pt-BR"
    assert (
        sorted(file.relative_to(portuguese).with_suffix("").as_posix() for file in portuguese.rglob("*.md"))
        == PAGES
    )


def test_both_readmes_have_the_same_structure_and_are_short() -> None:
    english, portuguese = (read(READMES[language]) for language in LANGUAGES)
    assert_same_structure(english, portuguese)
    assert max(len(text.splitlines()) for text in (english, portuguese)) <= LONGEST_README


@in_both_languages
@pytest.mark.parametrize("name", ["README", "index"])
def test_the_two_commands_come_first(name: str, language: str) -> None:
    text = read(READMES[language]) if name == "README" else page(language, name)
    assert code_blocks(text)[0] == ("sh", "scripts/start\nscripts/test")
    for command in ("scripts/start", "scripts/test"):
        assert os.access(ROOT / command, os.X_OK)


@pytest.mark.parametrize("name", OUTSIDE_THE_SITE)
def test_links_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose(read(name)))
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / name).parent.joinpath(link).is_file(), link


@in_both_languages
def test_the_readme_leads_to_every_page_of_its_language(language: str) -> None:
    text = read(READMES[language])
    decisions = {name for name in PAGES if re.match(r"develop/decisions/\d", name)}
    for name in set(PAGES) - decisions:
        assert f"](docs/{language}/{name}.md" in text, name
    listed = re.findall(r"\]\((\d{4}-[^)]+)\.md\)", page(language, "develop/decisions/index"))
    assert [f"develop/decisions/{name}" for name in listed] == sorted(decisions)


@in_both_languages
def test_the_readme_has_the_settings_that_have_no_default(language: str) -> None:
    assert table_with(read(READMES[language]), "SECRET_KEY").keys() == REQUIRED.keys()


def test_the_example_file_has_exactly_the_known_variables_and_no_value() -> None:
    values = dotenv_values(ROOT / ".env.example", interpolate=False)
    assert values.keys() == variables() - set(NOT_IN_DOTENV)
    assert set(values.values()) == {""}


@pytest.fixture
def app(connected: Services) -> Flask:
    return app_with_commands(connected)


@in_both_languages
def test_each_situation_of_the_runbook_says_what_is_seen_what_the_service_does_and_what_to_do(
    language: str,
) -> None:
    # What stands under an alert is the matter of test_monitoring_documents.py.
    text = re.split(r"^## Alert", prose(page(language, "operate/runbook")), flags=re.MULTILINE)[0]
    situations = [number for number, heading in enumerate(headings(text)) if heading.startswith("### ")]
    assert len(situations) > 10
    asked = {"en": ["You see", "The service", "You"], "pt-BR": ["Você vê", "O serviço", "Você"]}[language]
    for number in situations:
        assert re.findall(r"^- \*\*(.+?)\*\*: ", section(text, number), re.MULTILINE) == asked


@in_both_languages
def test_the_runbook_names_what_there_is(language: str, app: Flask) -> None:
    text = page(language, "operate/runbook")
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
        assert int(status) in error_statuses()[code]
    schemas = json.loads(openapi.DOCUMENT)["components"]["schemas"]
    known = {*get_args(store.Status), *filter(None, schemas["LastError"]["enum"]), *error_statuses()}
    known |= {*verdict.ORDER, *OPERATIONS, "stale", "page_size", "request_id"}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))
    assert named - {"max_connections", "rdstation_tokens", "rdservice"} <= known
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", text)) <= variables()
    alerts = re.findall(r"- alert: (\w+)", read("monitoring/rules/rdservice.yml"))
    assert set(re.findall(r"`(RDStation\w+)`", text)) <= set(alerts)


@in_both_languages
def test_scripts_faults_runs_by_the_lines_of_its_page(language: str) -> None:
    blocks = code_blocks(page(language, "develop/measuring"))
    [lines] = [block.splitlines() for _, block in blocks if "scripts/faults" in block]
    assert [line for line in lines if "--" in line] == ["scripts/faults --list"]
    known = set()
    for file in (ROOT / "tests" / "e2e").glob("test_*.py"):
        known |= set(re.findall(r'mark\.fault\(\s*"([^"]+)"', file.read_text()))
    for line in lines:
        program, *chosen = shlex.split(line)
        assert os.access(ROOT / program, os.X_OK)
        for begin in set(chosen) - {"--list"}:
            assert any(fault.startswith(begin) for fault in known), begin


@in_both_languages
def test_the_scopes_for_keys_are_those_that_routes_need(language: str, app: Flask) -> None:
    needed = {getattr(view, guard._DECLARATION).scope for view in app.view_functions.values()} - {None}
    pattern = r"^(Scopes for keys|Escopos de chaves).*?\.\n"
    sentence = re.search(pattern, page(language, "reference/commands"), re.MULTILINE | re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+:\w+)`", sentence[0])) == needed
    # Where a route is described its scope is named.
    api = page(language, "reference/http-api")
    assert set(re.findall(r"^(?:Scope|Escopo) `(\S+)`\.", api, re.MULTILINE)) == needed


@in_both_languages
def test_the_diagnosis_s_options_exit_statuses_and_file_are_documented(language: str) -> None:
    actions = [action for action in diagnosis._parser()._actions if "--help" not in action.option_strings]
    options = {
        f"{action.option_strings[0]} {action.metavar}" if action.nargs is None else action.option_strings[0]
        for action in actions
    }
    text = page(language, "reference/commands")
    [chapter] = re.findall(r"^## (?:The diagnosis|O diagnóstico)$.*", text, re.MULTILINE | re.DOTALL)
    assert table_with(chapter, "--no-refresh").keys() == options
    statuses = [int(row[0]) for row in table_rows(prose(chapter)) if row[0].isdigit()]
    assert statuses == [diagnosis.EXIT_WELL, diagnosis.EXIT_NEEDS_A_PERSON, diagnosis.EXIT_COULD_NOT_RUN]
    assert f"`{report_file.NAME}`" in chapter
    assert report_file.MODE == 0o600


def test_the_diagnosis_runs_by_the_line_of_the_readme(variables: dict[str, str], tmp_path: Path) -> None:
    [line] = [block for _, block in code_blocks(read("README.md")) if "debug_rdstation" in block]
    assert ("sh", line) in code_blocks(page("en", "reference/commands"))
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


@in_both_languages
def test_every_part_of_the_benchmark_is_on_its_page(language: str) -> None:
    text = page(language, "develop/measuring")
    assert list(table_with(text, "access-token")) == list(PARTS)
    [lines] = [block.splitlines() for _, block in code_blocks(text) if "scripts/bench" in block]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert os.access(ROOT / program, os.X_OK)
        assert {word for word in arguments if not word.startswith("--")} <= PARTS.keys()


@in_both_languages
def test_every_rule_of_the_simulation_is_on_its_page(language: str) -> None:
    text = page(language, "develop/measuring")
    assert list(table_with(text, "lapse")) == list(get_args(Rule))
    [lines] = [block.splitlines() for _, block in code_blocks(text) if "scripts/simulate" in block]
    assert os.access(ROOT / "scripts/simulate", os.X_OK)
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "scripts/simulate"
        assert plans(arguments)


@in_both_languages
def test_the_architecture_names_the_owner_of_every_table(language: str) -> None:
    created = {
        table
        for file in (ROOT / "rdservice").rglob("migrations/*.sql")
        for table in re.findall(r"^ *CREATE TABLE (?:IF NOT EXISTS )?(\w+)", read(file), re.MULTILINE)
    }
    assert len(created) > 15
    rows = [row for row in table_rows(page(language, "develop/architecture")) if row[0].startswith("`rd")]
    assert created <= {table for row in rows for table in re.findall(r"`(\w+)`", row[0])}


@in_both_languages
def test_the_guide_for_contributors_runs_files_that_are_there(language: str) -> None:
    lines = [*shell_lines(page(language, "develop/contributing")), *shell_lines(read("CONTRIBUTING.md"))]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/python" or os.access(ROOT / program, os.X_OK), line
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/")), line


class Terminal:
    """A shell in which the documents' lines are pasted: the `eval` lines are run, and curl's go to the application."""

    def __init__(self, app: Flask, folder: Path, environment: dict[str, str]) -> None:
        self.client = app.test_client()
        self.folder = folder
        self.environment = environment
        self.variables: dict[str, str] = {}

    def paste(self, line: str) -> TestResponse | None:
        piped = re.fullmatch(r'eval "\$\((curl .*?) \| (.*)', line)
        if piped:
            response = self._curl(piped[1])
            assert response.status_code == 200, response.text
            self._set_variables(f'eval "$({piped[2]}', response.text)
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
    lines = [*shell_lines(page("en", "reference/http-api")), *shell_lines(page("en", "reference/metrics"))]
    responses = [response for response in map(terminal.paste, lines) if response is not None]
    assert [response.status_code for response in responses] == [200] * len(responses)
    called = [(response.request.method, response.request.path) for response in responses]
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
    of_all, chosen, named, of_now = (
        response for response in responses if response.request.path == "/rd/leads"
    )
    assert [len(response.get_json()["contacts"]) for response in (of_all, chosen)] == [25, 50]
    assert of_all.get_json() == named.get_json() == of_now.get_json()
    one, by_email, looked_up = (
        response.get_json()
        for response in responses
        if response.request.path.startswith("/rd/leads/") and response.mimetype == "application/json"
    )
    assert one["uuid"] == terminal.variables["UUID"]
    assert one == by_email == looked_up
    assert conn.execute("SELECT count(*) FROM rdstation_tokens").fetchone() == (0,)


def test_the_lines_of_the_readme_upload_a_pair_take_a_token_and_read_leads(terminal: Terminal) -> None:
    lines = [line for line in shell_lines(read("README.md")) if line.startswith(("eval ", "curl "))]
    uploaded, taken, leads = (response for response in map(terminal.paste, lines) if response is not None)
    assert uploaded.get_json()["status"] == "connected"
    assert taken.get_json()["access_token"]
    assert len(leads.get_json()["contacts"]) == 1


def test_the_lines_that_delete_an_account_s_row_work_when_pasted(
    terminal: Terminal, conn: psycopg.Connection[Any]
) -> None:
    blocks = code_blocks(page("en", "reference/states"))
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


def test_the_sandbox_fails_by_the_lines_of_the_first_page(sandbox: SandboxProcess) -> None:
    lines = shell_lines(page("en", "index"))
    calls = [shlex.split(line) for line in lines if "$SANDBOX/_sandbox" in line]
    assert len(calls) == 4
    for words in calls:
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        [path] = [word.removeprefix("$SANDBOX/_sandbox") for word in words if word.startswith("$SANDBOX/")]
        sandbox._control(method, path, json.loads(words[-1]) if "-d" in words else None)
