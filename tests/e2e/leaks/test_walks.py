"""Every route and every command of the real processes, with planted secrets: none comes out anywhere.

Once without the second fence and with all loggers at DEBUG, once as in production.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import click
import psycopg
import pytest
import requests
from flask.cli import FlaskGroup

from rdservice.services import Services
from rdservice.web import create_app
from tests.support.command_line import app_with_commands
from tests.support.leaks.commands import COMMANDS, NOT_RUN, Run
from tests.support.leaks.routes import ENDING, ROUTES, Ask
from tests.support.leaks.stage import HOST, Stage
from tests.support.processes import listening_socket
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DIAGNOSIS = "scripts/debug_rdstation_integration.py"


def test_the_table_of_routes_has_every_route(services: Services) -> None:
    there = {
        f"{method} {rule.rule}"
        for rule in create_app(services).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert there == set(ROUTES), "add or remove these lines in ROUTES of tests/support/leaks/routes.py"


def test_the_table_of_commands_has_every_command(services: Services) -> None:
    app = app_with_commands(services)
    there = set(commands_below(app.cli)) | set(commands_below(FlaskGroup(add_version_option=False)))
    assert there == set(COMMANDS) | set(NOT_RUN), (
        "add or remove these lines in COMMANDS of tests/support/leaks/commands.py"
    )


def commands_below(group: click.Group, *above: str) -> Iterator[str]:
    """Return the names of all commands, as in `keys create`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_below(command, *above, name)
        else:
            yield " ".join((*above, name))


@pytest.fixture(scope="module")
def walked(stage: Stage) -> Stage:
    """The stage after everything was asked and run."""
    stage.log_in()
    stage.connect()
    stage.plant_webhook_secret()
    for rule in (rule for rule in ROUTES if rule not in ENDING):
        ask_all(stage, rule)
    run_the_development_server(stage)
    refresh_by_the_worker(stage)
    if not stage.production:
        # What they write goes through the same two fences; starting them takes most of the time.
        run_all_commands(stage)
        stage.connect()
    for rule in ENDING:
        ask_all(stage, rule)
    return stage


def filled(stage: Stage, value: Any, *, in_url: bool = False) -> Any:
    """Return `value` with planted values in place of their names."""
    if isinstance(value, dict):
        return {name: filled(stage, member) for name, member in value.items()}
    if not isinstance(value, str):
        return value
    return re.sub(
        r"\{(\w+)\}",
        lambda found: quote(stage.planted[found[1]], safe="") if in_url else stage.planted[found[1]],
        value,
    )


def ask_all(stage: Stage, rule: str) -> None:
    for ask in ROUTES[rule]:
        ask_everybody(stage, rule.partition(" ")[0], ask)


def ask_everybody(stage: Stage, method: str, ask: Ask) -> None:
    path = filled(stage, ask.path, in_url=True)
    more = {"json": filled(stage, ask.json)} if ask.json else {}
    if ask.form:
        more["data"] = filled(stage, ask.form)
    if ask.headers:
        more["headers"] = filled(stage, ask.headers)
    for by in ask.by:
        response = stage.call(method, path, by, shown=ask.shows, html=ask.html, **more)
        stage.plant_stored_tokens()
        let_the_account_be_renewed_again(stage)
    assert response.status_code == ask.status, (method, ask.path, response.status_code, response.text)


def let_the_account_be_renewed_again(stage: Stage) -> None:
    with psycopg.connect(stage.settings.database_url, autocommit=True) as conn:
        conn.execute("UPDATE rdstation_tokens SET retry_at = NULL")


def refresh_by_the_worker(stage: Stage) -> None:
    with psycopg.connect(stage.settings.database_url, autocommit=True) as conn:
        conn.execute("UPDATE rdstation_tokens SET refresh_after = rd_now(), retry_at = NULL")
    worker = stage.processes.worker()
    worker.wait_until_it_says(": stored (claim")
    # The test message of the walk, whose URL is full of secrets and leads nowhere.
    worker.wait_until_it_says("was not sent (")
    stage.plant_stored_tokens()
    worker.kill()


def run_all_commands(stage: Stage) -> None:
    """Groups side by side, the commands of a group one after the other."""
    groups: dict[str, list[tuple[str, Run]]] = {}
    for name, runs in COMMANDS.items():
        group = name.partition(" ")[0]
        # Both need the account, until the last of them disconnects it.
        group = "accounts" if group == "webhooks" else group
        groups.setdefault(group, []).extend((name, run) for run in runs)

    def run_group(group: list[tuple[str, Run]]) -> list[str]:
        return [
            f"flask {name}: status {status}, not {run.status}"
            for name, run in group
            if (
                status := stage.flask(
                    *name.split(),
                    *(filled(stage, argument) for argument in run.arguments),
                    text=filled(stage, run.text),
                    shown=run.shows,
                )
            )
            != run.status
        ]

    with ThreadPoolExecutor(3) as executor:
        wrong = [line for lines in executor.map(run_group, groups.values()) for line in lines]
    assert wrong == []


def run_the_development_server(stage: Stage) -> None:
    with listening_socket() as probe:
        port = probe.getsockname()[1]
    server = stage.processes.python("-m", "flask", "--app", "wsgi", "run", "--port", str(port))
    url = f"http://127.0.0.1:{port}"

    def responses() -> bool:
        assert server.runs, server.log
        try:
            return requests.get(f"{url}/healthz", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    wait_until(responses, "flask run answers", seconds=40)
    for path in (
        "/rd/callback?code={wrong_code}&state={wrong_state}",
        "/rd/leads/email/{lead_email}",
        "/rd/leads/{lead_uuid}",
    ):
        headers = {"Host": HOST, "Authorization": f"Bearer {stage.planted['key_secret']}"}
        requests.get(url + filled(stage, path, in_url=True), headers=headers, timeout=20)
    server.kill()


def test_nothing_planted_came_out(walked: Stage) -> None:
    found = walked.look_everywhere()
    assert not found, "\n".join(found)


def test_the_logs_are_those_of_the_walk(walked: Stage) -> None:
    """So that a search which finds nothing has looked into something."""
    web = "\n".join(walked.lines("web"))
    for words in (
        "Starting gunicorn",
        "Booting worker",
        "GET /rd/leads/email/<path:email> 200",
        "POST /login 303",
    ):
        assert words in web
    assert "refresh of account (an e-mail address): stored (claim" in "\n".join(walked.lines("worker"))
    assert "token_refresh 200" in walked.logs()[-2].read_text()
    assert len(walked.planted.values) > 40


def test_every_answer_s_request_id_is_in_the_log(walked: Stage) -> None:
    web = "\n".join(walked.lines("web"))
    assert len(walked.request_ids) > 100
    assert {found for found in walked.request_ids if found not in web} == set()


def test_in_production_every_line_is_a_json_object(walked: Stage) -> None:
    if not walked.production:
        assert any(" DEBUG " in line for line in walked.lines("web"))
        return
    for line in [*walked.lines("web"), *walked.lines("worker")]:
        entry = json.loads(line)
        assert {"timestamp", "level", "logger", "message"} <= set(entry), line


def test_the_lines_of_a_refresh_name_its_claim(walked: Stage) -> None:
    (line, *_) = [line for line in walked.lines("worker") if ": stored (claim" in line]
    if walked.production:
        assert f"(claim {json.loads(line)['claim']}," in json.loads(line)["message"]
    else:
        assert re.search(r"\(claim (\d+),.*\[claim \1\]$", line)
