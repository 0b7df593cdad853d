"""Commands speak the terminal's language: in one of ⟦marked⟧ texts, none of their sentences is outside of the marks.

Outside stand names, codes, settings, and what click and flask say themselves.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rdservice import cli
from rdservice.cli.translated_help import Option
from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.accounts import connect_account
from tests.support.pseudo_language import spoken, unmarked
from tests.support.sandbox_process import SandboxProcess

LETTER = re.compile(r"[^\W\d_]")
MARKED_AND_CUT = re.compile(r"⟦[^⟦⟧\n]*\.\.\.")
"""A line of a list of commands that is too long for the terminal."""
OF_CLICK = re.compile(
    r"""^Usage:\ .*(?:\n\ {10,}.*)*$  # how a command is called
    | ^Try\ '.*\ --help'\ for\ help\.$
    | ^(?:Options|Commands|Error|Warning):
    | Show\ this\ message\ and\ exit\.
    | \[(?:required|default:\ \w+)\]
    | \[y/N\]:
    """,
    re.MULTILINE | re.VERBOSE,
)
OPTION = re.compile(r"^  --[a-z-]+(?: TEXT| \[[a-z:|]+\])?", re.MULTILINE)
EXAMPLE = re.compile(r"^  +(?:flask|cat|echo|printf) .*$", re.MULTILINE)
COMMAND = re.compile(r"^  [a-z-]+ +(?=⟦)", re.MULTILINE)
CODES = re.compile(
    r"\b(?:connected|reauthorization_required|operator|early|stored|superseded|refused|failed|sent|test"
    r"|HTTP|UTC|rdk_\w+|tokens:status|leads:read|WEBHOOK\.\w+)\b"
)
NAMES = re.compile(
    r"\bshop\b|\bana@example\.com\b|\bwebsite\b|\b[0-9a-f]{8}(?:-[0-9a-f-]+)?\b|\b[a-z2-7]{8}\b"
)


def paths(command: click.Command, above: str = "") -> Iterator[str]:
    name = f"{above} {command.name}".strip()
    yield name
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from paths(below, name)


ALL_PATHS = [path for command in cli.COMMANDS for path in paths(command)]


@pytest.fixture
def run_marked(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs commands while Portuguese is the pseudo-language."""
    monkeypatch.setenv("LC_ALL", "pt_BR.UTF-8")
    with spoken():
        yield run


def left(text: str) -> str:
    """Return the letters that are neither marked nor click's or flask's."""
    text = OF_CLICK.sub("", text)
    for pattern in (OPTION, EXAMPLE, COMMAND, MARKED_AND_CUT):
        text = pattern.sub("", text)
    return unmarked(text)


def assert_marked(text: str) -> None:
    assert "⟦" in text, text
    assert not LETTER.search(NAMES.sub("", CODES.sub("", left(text)))), text


@pytest.mark.parametrize("path", ALL_PATHS)
def test_the_help_of_each_command(run_marked: Run, path: str) -> None:
    shown = run_marked(*path.split(), "--help")
    assert shown.exit_code == 0
    assert "⟦" in shown.stdout
    assert not LETTER.search(left(shown.stdout)), shown.stdout


def test_the_list_of_all_commands(run_marked: Run) -> None:
    listed = run_marked("--help").stdout.partition("Commands:\n")[2]
    own = [line for line in listed.splitlines() if line.split()[0] in {one.name for one in cli.COMMANDS}]
    assert len(own) == len(cli.COMMANDS)
    assert not LETTER.search(left("\n".join(own)))


def test_every_option_has_translated_help() -> None:
    for path in ALL_PATHS:
        command: click.Command = click.Group(commands={str(one.name): one for one in cli.COMMANDS})
        for name in path.split():
            assert isinstance(command, click.Group)
            command = command.commands[name]
        for option in command.params:
            assert isinstance(option, Option | click.Argument), f"flask {path}: {option.name}"


def test_the_help_is_english_where_the_terminal_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert "List all accounts with their states." in run("accounts", "list", "--help").stdout
    monkeypatch.setenv("LC_ALL", "pt_BR.UTF-8")
    assert "Lista todas as contas com a situação." in run("accounts", "list", "--help").stdout


def test_commands_of_operators_and_keys(run_marked: Run) -> None:
    password = "a long password\n"
    for arguments, stdin in (
        (["operators", "list"], None),
        (["operators", "create", "ana@example.com", "--password-stdin"], password),
        (["operators", "create", "ana@example.com", "--password-stdin"], password),
        (["operators", "create", "nobody", "--password-stdin"], password),
        (["operators", "create", "ana@example.com", "--password-stdin"], "short\n"),
        (["operators", "list"], None),
        (["operators", "reset-password", "ana@example.com", "--password-stdin"], password),
        (["operators", "reset-password", "ana@example.com"], password * 2),
        (["operators", "remove", "ana@example.com"], None),
        (["operators", "remove", "ana@example.com", "--yes"], None),
        (["operators", "remove", "ana@example.com", "--yes"], None),
        (["keys", "list"], None),
        (["keys", "create", "website", "--scope", "leads:read"], None),
        (["keys", "create", " ", "--scope", "leads:read"], None),
        (["keys", "revoke", "aaaaaaaa", "--yes"], None),
    ):
        ended = run_marked(*arguments, stdin=stdin)
        assert_marked(re.sub(r"\brdk_\S+", "", ended.output))
    key_id = run_marked("keys", "list").stdout.split()[0]
    for arguments in (["keys", "list"], ["keys", "revoke", key_id, "--yes"], ["keys", "list"]):
        assert_marked(run_marked(*arguments).output.replace(key_id, ""))


def test_commands_of_accounts(run_marked: Run, connected: Services, sandbox: SandboxProcess) -> None:
    assert_marked(run_marked("accounts", "list").output)
    assert_marked(run_marked("accounts", "show", "shop").output)
    assert_marked(run_marked("accounts", "refresh", "shop").output)
    connect_account(connected, sandbox, "shop", due=False)
    assert run_marked("accounts", "refresh", "shop").output == "shop: stored\n"
    for arguments in (
        ["accounts", "list"],
        ["accounts", "show", "shop"],
        ["webhooks", "list"],
        ["webhooks", "subscribe", "--account", "shop"],
        ["webhooks", "subscribe", "--account", "shop"],
        ["webhooks", "list"],
        ["webhooks", "unsubscribe", "--account", "shop"],
        ["webhooks", "unsubscribe", "--account", "shop"],
        ["accounts", "disconnect", "shop"],
        ["accounts", "disconnect", "shop", "--yes"],
        ["accounts", "disconnect", "shop", "--yes"],
    ):
        # The name that RD Station gives the account stands on these lines too.
        shown = re.sub(r"Sandbox [\w ]+?(?=  |\n)|Conta \w+", "", run_marked(*arguments).output)
        assert_marked(shown)


def test_a_warning(run_marked: Run, connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, "shop", due=False)
    sandbox.patch(faults=[{"operation": "revoke", "kind": "status", "status": 500}])
    ended = run_marked("accounts", "disconnect", "shop", "--yes")
    assert "HTTP 500" in ended.stderr
    assert_marked(ended.output)


def test_an_export(run_marked: Run, connected: Services, sandbox: SandboxProcess, tmp_path: Path) -> None:
    connect_account(connected, sandbox, "shop", due=False)
    file = tmp_path / "leads.ndjson"
    assert_marked(run_marked("leads", "export", str(file), "--account", "default").output)
    for arguments in (
        [str(file), "--account", "shop"],
        [str(file), "--account", "shop"],
        [str(tmp_path / "none.csv"), "--account", "shop", "--resume"],
        ["-", "--account", "shop", "--resume"],
        [str(tmp_path / "b.csv"), "--account", "shop", "--segmentation", "none of these"],
        [str(tmp_path / "b.csv"), "--account", "shop"],
        [str(tmp_path / "c.csv"), "--account", "a/b"],
    ):
        assert_marked(run_marked("leads", "export", *arguments).output)


def test_commands_of_the_service(run_marked: Run, connected: Services, sandbox: SandboxProcess) -> None:
    connect_account(connected, sandbox, "shop", due=False)
    tables = re.compile(r"\brdservice_\w+|\brdstation_\w+")
    for arguments in (
        ["release"],
        ["settings", "check"],
        ["notifications", "test"],
        ["encryption", "status"],
        ["encryption", "rotate"],
        ["privacy", "erase", "nobody", "--yes"],
        ["privacy", "erase", "ana@example.com"],
    ):
        assert_marked(tables.sub("", run_marked(*arguments).output))


def test_without_a_database(
    run_without_database: Run, run_before_release: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "pt_BR.UTF-8")
    with spoken():
        unreachable = run_without_database("accounts", "list")
        assert unreachable.exit_code == 75
        assert_marked(unreachable.output)
        assert_marked(run_before_release("accounts", "list").output)
        assert_marked(re.sub(r"0\d\d\d \w+", "", run_before_release("release").output))
