"""What `--help` says of each command: what it does in one line that is not cut off, and an example that works."""

import re
import shlex

import click
import pytest

from rdservice.services import Services
from tests.integration.cli.conftest import Run
from tests.support.command_line import app_with_commands

FLASKS_OWN = {"run", "shell", "routes"}
WIDTH = 80
"""Of a terminal that tells nothing."""


def own_commands(services: Services) -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in app_with_commands(services).cli.commands.items():
        if name not in FLASKS_OWN:
            found[name] = command
            if isinstance(command, click.Group):
                found |= {f"{name} {below}": part for below, part in command.commands.items()}
    assert found
    return found


@pytest.mark.parametrize("locale", ["C", "pt_BR.UTF-8"])
def test_every_list_of_commands_says_in_whole_sentences_what_they_do(
    run: Run, connected: Services, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    groups = [
        "",
        *(name for name, command in own_commands(connected).items() if isinstance(command, click.Group)),
    ]
    assert len(groups) > 5
    for group in groups:
        shown = run(*group.split(), "--help")
        assert shown.exit_code == 0
        listed = shown.stdout.partition("Commands:\n")[2]
        for line in listed.splitlines():
            name = line.split()[0]
            if name not in FLASKS_OWN:
                assert re.fullmatch(r"  [a-z-]+ +[A-Z][^.]*\.", line), line
                assert len(line) <= WIDTH


def test_every_command_has_an_example_of_itself_that_parses(connected: Services) -> None:
    app = app_with_commands(connected)
    for name, command in own_commands(connected).items():
        if isinstance(command, click.Group):
            continue
        examples = re.findall(rf"^\s*(?:.*\| )?flask ({name}\b.*)$", command.help or "", re.M)
        assert examples, f"flask {name} --help shows no example of it"
        for example in examples:
            words = shlex.split(example.partition(" > ")[0])[len(name.split()) :]
            with app.app_context():
                command.make_context(name, words)


@pytest.mark.parametrize(
    "name", ["operators remove", "keys revoke", "accounts disconnect", "privacy erase", "privacy reapply"]
)
def test_what_destroys_has_the_option_yes(connected: Services, name: str) -> None:
    options = {option for param in own_commands(connected)[name].params for option in param.opts}
    assert "--yes" in options


def test_what_programs_read_has_the_option_json(connected: Services) -> None:
    verbs = {"list", "show", "status", "check", "create"}
    for name, command in own_commands(connected).items():
        if name.split()[-1] in verbs:
            assert "--json" in {option for param in command.params for option in param.opts}, name
