"""Bars on terminals, and nothing of the kind in pipes."""

import io

import pytest

from rdservice.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress.shown("Encrypting", 400) as on_rows:
        on_rows(200)
        on_rows(200)
    assert "Encrypting" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_a_pipe_gets_nothing_from_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    with progress.shown("Encrypting", 400) as on_rows:
        on_rows(400)
    assert pipe.getvalue() == ""


def test_a_pipe_gets_whole_lines_now_and_then_from_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    monkeypatch.setattr(progress, "SAY_EVERY_S", 0.0)
    with progress.shown("Encrypting", 400) as on_rows:
        on_rows(150)
        on_rows(250)
    assert pipe.getvalue() == "Encrypting: 150 of 400 rows\nEncrypting: 400 of 400 rows\n"
