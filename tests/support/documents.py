"""The parts of the documents, for tests that compare them with the code and with each other."""

import re
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "pt-BR")
READMES = {"en": "README.md", "pt-BR": "README.pt-BR.md"}


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def page(language: str, name: str) -> str:
    """Return the text of a page of the documents, such as `guide/connect`."""
    return read(f"docs/{language}/{name}.md")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks as (language, contents), in order, without the indentation of a list around them."""
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [(language, dedent(contents).strip()) for _, language, contents in blocks]


def prose(text: str) -> str:
    """Return the text without fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ .+$", prose(text), re.MULTILINE)


def section(text: str, number: int) -> str:
    """Return the section under the `number`th heading of any level, counted from 0."""
    return re.split(r"^#+ .+$", text, flags=re.MULTILINE)[number + 1]


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows, headers included."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not re.fullmatch(r"[-|]+", line)]


def table(text: str) -> dict[str, list[str]]:
    """Return the table rows whose first cell is a word in backticks: the word to the other cells."""
    rows = table_rows(text)
    return {cells[0].strip("`"): cells[1:] for cells in rows if re.fullmatch(r"`\w+`", cells[0])}


def table_with(text: str, word: str) -> dict[str, list[str]]:
    """Return the only table of `text` with a row for `word`: its first cells, without backticks, to the other cells."""
    tables = re.findall(r"(?:^\|.+\|\n)+", prose(text), re.MULTILINE)
    rows = [{row[0].strip("`"): row[1:] for row in table_rows(table)[1:]} for table in tables]
    [found] = [table for table in rows if word in table]
    return found


def assert_same_structure(english: str, portuguese: str) -> None:
    """Check that two texts have the same headings, code blocks and tables, and in these the same words of code."""
    levels = [[heading.split()[0] for heading in headings(text)] for text in (english, portuguese)]
    assert levels[0] == levels[1]
    assert code_blocks(english) == code_blocks(portuguese)
    for number in range(len(levels[0])):
        first, second = (table_rows(section(prose(text), number)) for text in (english, portuguese))
        assert [len(row) for row in first] == [len(row) for row in second]
        for one, other in zip(first, second, strict=True):
            if re.fullmatch(r"`[^`]+`(, `[^`]+`)*", one[0]):
                assert one[0] == other[0]
