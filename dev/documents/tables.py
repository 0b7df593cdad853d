"""Generates the tables of the documents: rows from the code, a sentence for each row from `sentences.toml`.

What a command does comes from its help.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import click
import yaml
from dotenv import dotenv_values
from flask import Flask
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from rdservice import cli, errors
from rdservice.cli.translated_help import prose
from rdservice.config.settings import Settings, data_dir
from rdservice.database.usage import Connections, ProcessKind
from rdservice.errors import RdServiceError
from rdservice.metrics.definitions import OPERATIONS, Metrics
from rdservice.metrics.flusher import Snapshot
from rdservice.metrics.state import Overview, State
from rdservice.tokens.store import Status
from rdservice.web.api import exposition, openapi
from rdservice.web.api import metrics as http_metrics
from rdservice.web.http.problems import FRAMEWORK

Language = Literal["en", "pt-BR"]

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text(encoding="utf-8"))
ALERT_RULES = ROOT / "monitoring" / "rules" / "rdservice.yml"

# Read from the environment alone: the one says where to find settings, the other is Heroku's.
NOT_IN_DOTENV = ("RDSERVICE_DATA_DIR", "DYNO")
DEFAULTS = {
    "RDSTATION_CACHE_TTL": "cache_ttl_s",
    "RDSTATION_API_URL": "api_url",
    "RDSTATION_SCOPE": "scope",
    "RDSTATION_RATE_LIMIT": "rate_limit",
    "DATABASE_POOL_SIZE": "database_pool_size",
    "TRUSTED_PROXIES": "trusted_proxies",
}
"""The settings with a default, and the field of `Settings` that has it."""
REQUIRED = {
    "RDSTATION_CLIENT_ID": "id",
    "RDSTATION_CLIENT_SECRET": "secret",
    "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    "DATABASE_URL": "postgres://user:password@host:5432/database",
    "SECRET_KEY": "0" * 32,
    "TOKEN_ENCRYPTION_KEYS": "0" * 64,
}
"""The settings without a default, with valid values."""

WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "required": "required",
        "none": "none",
        "other": "other",
        "operations": "`operation` is {names} or {last}.",
    },
    "pt-BR": {
        "required": "obrigatória",
        "none": "nenhum",
        "other": "outros",
        "operations": "`operation` é {names} ou {last}.",
    },
}
HEADS: dict[str, dict[Language, tuple[str, ...]]] = {
    "settings": {"en": ("variable", "default", "meaning"), "pt-BR": ("variável", "padrão", "significado")},
    "errors": {"en": ("code", "status", "what to do"), "pt-BR": ("código", "status", "o que fazer")},
    "states": {"en": ("state", "what it means"), "pt-BR": ("estado", "o que significa")},
    "last_errors": {"en": ("last error", "what it means"), "pt-BR": ("último erro", "o que significa")},
    "commands": {"en": ("command", "options", "what it does"), "pt-BR": ("comando", "opções", "o que faz")},
    "metrics": {
        "en": ("metric", "type", "labels", "what it counts"),
        "pt-BR": ("métrica", "tipo", "rótulos", "o que conta"),
    },
    "alerts": {"en": ("alert", "severity", "fires when"), "pt-BR": ("alerta", "gravidade", "dispara quando")},
}


class DocumentsError(Exception):
    """The documents do not match the code. The message says what to write, and where."""


def settings(language: Language) -> list[str]:
    """Return the table of all environment variables with their defaults."""
    names = [*dotenv_values(ROOT / ".env.example", interpolate=False), *NOT_IN_DOTENV]
    read = Settings.from_mapping(REQUIRED)
    words = WORDS[language]

    def default(name: str) -> str:
        if name in REQUIRED:
            return words["required"]
        if name == "RDSERVICE_DATA_DIR":
            return f"`{data_dir({}).relative_to(ROOT)}`"
        return f"`{getattr(read, DEFAULTS[name])}`" if name in DEFAULTS else words["none"]

    return _table("settings", language, {name: [default(name)] for name in names})


def error_statuses() -> dict[str, set[int]]:
    """Return every error code with its HTTP statuses."""
    codes: dict[str, set[int]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, RdServiceError):
            codes.setdefault(kind.code, set()).add(kind.status)
    for status, (code, _, _) in FRAMEWORK.items():
        codes.setdefault(code, set()).add(status)
    return codes


def error_codes(language: Language) -> list[str]:
    """Return the table of all error codes."""
    # All other errors of Werkzeug become one of these two: see `rdservice.web.http.problems`.
    of_the_framework = {errors.BadRequest.code: "4xx", RdServiceError.code: "5xx"}
    rows = {
        code: [
            ", ".join(map(str, sorted(statuses)))
            + (f", {WORDS[language]['other']} {of_the_framework[code]}" if code in of_the_framework else "")
        ]
        for code, statuses in error_statuses().items()
    }
    return _table("errors", language, rows)


def states(language: Language) -> list[str]:
    """Return the table of the states of an account."""
    return _table("states", language, {state: [] for state in get_args(Status)})


def last_errors(language: Language) -> list[str]:
    """Return the table of the reasons for which a refresh fails."""
    schemas = json.loads(openapi.DOCUMENT)["components"]["schemas"]
    return _table("last_errors", language, {error: [] for error in schemas["LastError"]["enum"] if error})


def commands(language: Language) -> list[str]:
    """Return the table of the `flask` commands: their options, and what their help says without the examples."""
    lines = _head("commands", language)
    for name, command in _commands():
        usage = " ".join([f"flask {name}", *_arguments(command)])
        lines.append(_line([f"`{usage}`", _options(command), _quoted(prose(command, language))]))
    return lines


def metrics(language: Language) -> list[str]:
    """Return the table of all metrics with their types and labels."""
    rows = {
        family.name + ("_total" if family.type == "counter" else ""): [
            family.type,
            ", ".join(f"`{label}`" for label in _labels(family)),
        ]
        for family in text_string_to_metric_families(_exposition())
    }
    *names, last = (f"`{operation}`" for operation in OPERATIONS)
    operations = WORDS[language]["operations"].format(names=", ".join(names), last=last)
    return [*_table("metrics", language, rows), "", operations]


def alerts(language: Language) -> list[str]:
    """Return the table of the alert rules with their severities."""
    groups = yaml.safe_load(ALERT_RULES.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    return _table("alerts", language, {rule["alert"]: [rule["labels"]["severity"]] for rule in rules})


def _table(subject: str, language: Language, rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a table of Markdown: the row's name in backticks, its cells, its sentence."""
    sentences = SENTENCES[subject]
    if missing := rows.keys() - sentences.keys():
        raise DocumentsError(f"write a sentence in sentences.toml, [{subject}.…], for {sorted(missing)}")
    if unknown := sentences.keys() - rows.keys():
        raise DocumentsError(
            f"the code has no row for these of sentences.toml, [{subject}.…]: {sorted(unknown)}"
        )
    lines = _head(subject, language)
    for name, sentence in sentences.items():
        lines.append(_line([f"`{name}`", *rows[name], sentence[language]]))
    return lines


def _head(subject: str, language: Language) -> list[str]:
    heads = HEADS[subject][language]
    return [_line(heads), "|" + "---|" * len(heads)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells).replace("|  |", "| |") + " |"


def _commands() -> Iterator[tuple[str, click.Command]]:
    app = Flask("commands")
    cli.register(app)
    for name, command in app.cli.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", found) for sub, found in command.commands.items())
        else:
            yield name, command


def _arguments(command: click.Command) -> list[str]:
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    names = [(argument.human_readable_name.upper(), argument.required) for argument in arguments]
    return [name if required else f"[{name}]" for name, required in names]


def _quoted(text: str) -> str:
    """Return the help of a command as Markdown: quoted commands and names in capitals stand in backticks."""
    return re.sub(
        r"'(flask [^']+)'|\b([A-Z]+(?:_[A-Z]+)+)\b", lambda found: f"`{found[1] or found[2]}`", text
    )


def _options(command: click.Command) -> str:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return ", ".join(f"`{option.opts[0]}`" for option in options)


def _labels(family: Metric) -> list[str]:
    """Return the labels of a metric, without the bounds of a histogram's buckets."""
    found = {label: None for sample in family.samples for label in sample.labels}
    return [label for label in found if label != "le"]


def _exposition() -> str:
    """Return what `/metrics` shows after a request, without a database."""
    counted = Metrics()
    app = Flask("metrics")
    http_metrics.init_app(app, counted)
    app.add_url_rule("/", view_func=lambda: "")
    app.test_client().get("/")
    state = Overview(
        tokens=dict.fromkeys(get_args(Status), 0),
        earliest_expiry=0.0,
        last_refresh_success=0.0,
        worker_heartbeat=0.0,
    )
    connections = Connections(by_process=dict.fromkeys(get_args(ProcessKind), 0), free=0)
    snapshot = Snapshot(
        totals=counted.current(),
        state=State(overview=state, failing_notifications=0, connections=connections),
        flushed=True,
        read_only=False,
    )
    return exposition.render(counted, snapshot).decode()
