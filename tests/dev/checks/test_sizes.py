"""The limits on the length of modules and READMEs, and on the modules that stand loose in `rdservice/`."""

from pathlib import Path

import pytest

from dev.checks import sizes

ROOT = Path(__file__).resolve().parents[3]
READMES = ("README.md", "README.pt-BR.md")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository at each of the limits."""
    for folder in sizes.CODE:
        (tmp_path / folder / "inner").mkdir(parents=True)
        write(tmp_path / folder / "inner" / "longest.py", lines=400)
    write(tmp_path / "rdservice" / "__init__.py", lines=1)
    for number in range(6):
        write(tmp_path / "rdservice" / f"loose_{number}.py", lines=1)
    for name in READMES:
        write(tmp_path / name, lines=200)
    return tmp_path


def write(file: Path, *, lines: int) -> None:
    file.write_text("# á\n" * lines, encoding="utf-8")


def test_the_repository_keeps_within_the_limits() -> None:
    assert sizes.mistakes(ROOT) == []


def test_every_folder_with_code_that_is_no_test_is_looked_at() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert set(sizes.CODE) == packages - {"tests"}


def test_at_the_limits_nothing_is_found(tree: Path) -> None:
    assert sizes.mistakes(tree) == []


@pytest.mark.parametrize("folder", sizes.CODE)
def test_a_module_that_is_longer_is_found(tree: Path, folder: str) -> None:
    write(tree / folder / "inner" / "longest.py", lines=401)
    assert sizes.mistakes(tree) == [f"{folder}/inner/longest.py has 401 lines, 400 at most"]


def test_a_seventh_loose_module_is_found(tree: Path) -> None:
    write(tree / "rdservice" / "loose_6.py", lines=1)
    assert sizes.mistakes(tree) == ["7 modules stand loose in rdservice/, 6 at most"]


@pytest.mark.parametrize("name", READMES)
def test_a_readme_that_is_longer_is_found(tree: Path, name: str) -> None:
    write(tree / name, lines=201)
    assert sizes.mistakes(tree) == [f"{name} has 201 lines, 200 at most"]


def test_what_is_found_is_printed_and_is_the_exit_status(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizes, "ROOT", tree)
    assert sizes.main() == 0
    assert capsys.readouterr().err.strip() == ""
    write(tree / "rdservice" / "inner" / "longest.py", lines=401)
    write(tree / "README.md", lines=201)
    assert sizes.main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "rdservice/inner/longest.py has 401 lines, 400 at most",
        "README.md has 201 lines, 200 at most",
    ]
