"""scripts/check: it says what holds, names what does not, and ends accordingly."""

import shutil
import sys
from pathlib import Path

import pytest

from dev.checks import check

ROOT = Path(__file__).resolve().parents[3]
WELL = "VALUE = 1\n"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of one module, which the two quickest checks look at."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "module.py").write_text(WELL)
    quick = {name: check.CHECKS[name] for name in ("style", "formatting")}
    monkeypatch.setattr(check, "CHECKS", quick)
    monkeypatch.setattr(check, "LONG_CHECKS", {"a long one": ["-c", "raise SystemExit('it took hours')"]})
    monkeypatch.setattr(check, "ROOT", tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    return check.main()


def outcomes(out: str) -> dict[str, str]:
    """Return what the lines say of each check; a line is `ok`, the seconds and the check's name."""
    return {name: outcome for outcome, _, _, name in (line.split(maxsplit=3) for line in out.splitlines())}


def test_where_everything_holds_it_says_so_and_leaves_the_tree_as_it_was(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    said = capsys.readouterr()
    assert outcomes(said.out) == {"style": "ok", "formatting": "ok"}
    assert said.err == ""
    assert (copy / "module.py").read_text() == WELL


@pytest.mark.parametrize(
    ("text", "failed", "named"),
    [("import os\n", "style", "F401"), ("VALUE=1\n", "formatting", "module.py")],
)
def test_a_check_that_fails_is_named_with_its_output_and_the_others_still_run(
    copy: Path,
    text: str,
    failed: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (copy / "module.py").write_text(text)
    assert run(monkeypatch) == 1
    said = capsys.readouterr()
    assert outcomes(said.out) == {"style": "ok", "formatting": "ok"} | {failed: "FAIL"}
    assert named in said.err
    assert f"failed: {failed}. scripts/fix rewrites" in said.err
    assert (copy / "module.py").read_text() == text


def test_all_runs_what_takes_hours_too(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--all") == 1
    said = capsys.readouterr()
    assert outcomes(said.out) == {"style": "ok", "formatting": "ok", "a long one": "FAIL"}
    assert "it took hours" in said.err
    assert "failed: a long one." in said.err
