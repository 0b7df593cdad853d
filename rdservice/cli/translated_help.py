"""Commands and options whose help speaks the terminal's language.

A command's help stays where click looks for it: in the docstring, in English. Each of its paragraphs is a text of the
catalogue. Of the last one, the examples, only the heading is.
"""

import functools
import inspect
from collections.abc import Iterator

import click
from flask.cli import AppGroup

from rdservice.text.catalogue import Language, translated
from rdservice.text.terminal import language

VERBATIM = "\b\n"
"""In click's help: the paragraph that begins so keeps its lines."""


def help_texts(command: click.Command) -> Iterator[str]:
    """Yield the English texts in the help of `command`, of its options, and of the commands below it."""
    option_helps = [option.english_help for option in command.params if isinstance(option, Option)]
    own_help = command.english_help if isinstance(command, Command | Group) else None
    for text in filter(None, [own_help, *option_helps]):
        for paragraph in _paragraphs(text):
            yield _key(paragraph)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from help_texts(below)


def prose(command: click.Command, wanted: Language) -> str:
    """Return what `command` does, in `wanted`, in one line: its help without the examples."""
    english = command.english_help if isinstance(command, Command | Group) else None
    told = [part for part in _paragraphs(english or "") if not part.startswith(VERBATIM)]
    return " ".join(translated(wanted, _key(part)) for part in told)


class _TranslatedHelp:
    """Keeps the English help, and gives it out in the terminal's language each time."""

    english_help: str | None = None

    @property
    def help(self) -> str | None:
        if self.english_help is None:
            return None
        spoken = language()
        return "\n\n".join(_translated(spoken, part) for part in _paragraphs(self.english_help))

    @help.setter  # noqa: A003 - click's name
    def help(self, text: str | None) -> None:
        self.english_help = text


class Command(_TranslatedHelp, click.Command):
    """A command with translated help."""


class Option(_TranslatedHelp, click.Option):
    """An option with translated help."""


class Group(_TranslatedHelp, AppGroup):
    """A group of commands with translated help."""

    command_class = Command


option = functools.partial(click.option, cls=Option)


def _paragraphs(text: str) -> list[str]:
    return inspect.cleandoc(text).split("\n\n") if text else []


def _key(paragraph: str) -> str:
    """Return what of a paragraph is translated, as the catalogue has it: in one line."""
    if paragraph.startswith(VERBATIM):
        return paragraph.splitlines()[1]
    return " ".join(paragraph.split())


def _translated(spoken: Language, paragraph: str) -> str:
    told: str = translated(spoken, _key(paragraph))
    if not paragraph.startswith(VERBATIM):
        return told
    return "\n".join(["\b", told, *paragraph.splitlines()[2:]])
