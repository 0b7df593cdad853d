"""The guides can be followed to the letter."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from string import Template
from typing import Any

import click
import psycopg
import pytest
from flask import Flask

from rdservice.access import keys
from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web.text.problem_texts import page_text
from scripts.local.sandbox_consent import obtain_tokens
from tests.support.command_line import app_with_commands
from tests.support.documents import LANGUAGES, code_blocks, page, read

guide = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture
def app(connected: Services) -> Flask:
    return app_with_commands(connected)


def flask_lines(text: str) -> list[list[str]]:
    """Return the words after `flask` of each line that runs one of the service's commands."""
    lines = [line.strip() for _, block in code_blocks(text) for line in block.splitlines()]
    found = [re.search(r"\bflask ((?!db)[a-z].*)$", line) for line in lines if not line.startswith("#")]
    return [shlex.split(match[1]) for match in found if match]


@guide
@pytest.mark.parametrize("name", ["connect", "deploy", "moving"])
def test_every_command_of_a_guide_is_one_of_the_service_with_options_that_it_takes(
    name: str, language: str, app: Flask
) -> None:
    lines = flask_lines(page(language, f"guide/{name}"))
    assert lines
    for words in lines:
        command: click.Command = app.cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        # Parsing checks options and arguments, and runs nothing.
        command.make_context(command.name, words, resilient_parsing=False)


@guide
def test_the_errors_that_the_guide_of_connecting_explains_are_called_so_on_the_pages(
    language: str, app: Flask
) -> None:
    quoted = re.findall(r"^\| \*(.+?)\* \|", page(language, "guide/connect"), re.MULTILINE)
    with app.test_request_context(headers={"Accept-Language": language}):
        titles = [page_text(code).title for code in ("invalid_state", "code_refused", "consent_refused")]
    assert quoted == titles


@guide
@pytest.mark.parametrize("name", ["connect", "deploy"])
def test_the_settings_that_a_guide_names_are_known(name: str, language: str) -> None:
    pattern = r"`?\b((?:RD[A-Z]+|DATABASE|SECRET|TOKEN|TRUSTED)_[A-Z_]+)\b"
    named = set(re.findall(pattern, page(language, f"guide/{name}")))
    known = set(re.findall(r"^([A-Z_]+)=", read(".env.example"), re.MULTILINE))
    assert named
    assert named <= known


def test_the_settings_that_the_guide_of_deploying_lets_one_fill_in_are_all_that_production_requires() -> None:
    step = re.search(r"Fill in (.+?)\. Then", page("en", "guide/deploy"), re.DOTALL)
    assert step is not None
    filled = dict(
        part.split("=", 1) if "=" in part else (part, "")
        for part in re.findall(r"`([A-Z_]+(?:=\S+)?)`", step[1])
    )
    examples = {
        "RDSTATION_CLIENT_ID": "id",
        "RDSTATION_CLIENT_SECRET": "secret",
        "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
        "SECRET_KEY": "0" * 32,
        "TOKEN_ENCRYPTION_KEYS": "0" * 64,
    }
    settings = Settings.from_mapping({name: value or examples[name] for name, value in filled.items()})
    assert (settings.trusted_proxies, settings.served_over_https) == (1, True)


def units(language: str) -> dict[str, str]:
    """Return the systemd units of the guide by their file names."""
    text = page(language, "guide/deploy")
    names = re.findall(r"`/etc/systemd/system/(\S+\.service)`", text)
    bodies = [body for kind, body in code_blocks(text) if kind == "ini"]
    return dict(zip(names, bodies, strict=True))


def test_the_units_run_the_processes_of_the_procfile() -> None:
    processes = dict(line.split(": ", 1) for line in read("Procfile").splitlines())
    for name in ("web", "worker"):
        unit = configparser.ConfigParser(strict=False)
        unit.read_string(units("en")[f"rdservice-{name}.service"])
        command = unit["Service"]["ExecStart"].removeprefix("/opt/rdservice/.venv/bin/")
        assert command.removeprefix("python -m ") == processes[name].removeprefix("python -m ")
        # Longer than web and worker need to end.
        assert int(unit["Service"]["TimeoutStopSec"]) >= 30
        assert unit["Service"]["RestartPreventExitStatus"] == "78"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    for name, text in units("en").items():
        # The folder of the guide is not there, and its user neither.
        file = tmp_path / name
        file.write_text(
            text.replace("/opt/rdservice/.venv/bin/python", "/bin/true").replace(
                "User=rdservice", "User=root"
            )
        )
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
        )
        complaints = [line for line in done.stderr.splitlines() if name in line]
        assert (done.returncode, complaints) == (0, []), done.stderr


def test_a_pair_of_tokens_moves_by_the_line_of_the_guide(
    app: Flask, connected: Services, conn: psycopg.Connection[Any]
) -> None:
    [line] = [block for _, block in code_blocks(page("en", "guide/moving")) if block.startswith("curl ")]
    settings = connected.settings
    pair = obtain_tokens(
        settings.api_url,
        client_id=settings.client_id,
        client_secret=settings.client_secrets[0],
        redirect_uri=settings.redirect_uri,
    )
    key = keys.create(conn, "mover", ["tokens:write"], created_by="test")
    given = {"URL": "", "KEY": key, "ACCESS_TOKEN": pair.access_token, "REFRESH_TOKEN": pair.refresh_token}
    words = [Template(word).substitute(given) for word in shlex.split(line)]
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    response = app.test_client().post(words[3], data=words[words.index("-d") + 1], headers=headers)
    assert (response.status_code, json.loads(response.text)["status"]) == (200, "connected")
