"""The check that the requirements*.in files name what is imported, and nothing else."""

from pathlib import Path

import pytest

from dev.checks.check_packages import ROOT, findings

FILES = ("requirements.in", "requirements-local.in", "requirements-dev.in")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project in which all is well."""
    for name in ("rdservice", "scripts", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "rdservice" / "web.py").write_text("import flask\n")
    (tmp_path / "scripts" / "start.py").write_text("import aiohttp\n")
    (tmp_path / "tests" / "test_web.py").write_text("import pytest\n")
    for name, text in zip(
        FILES,
        ("flask\n", "-r requirements.in\naiohttp\n", "-r requirements-local.in\npytest\n"),
        strict=True,
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_this_project_declares_what_it_imports_and_no_more() -> None:
    assert findings(ROOT) == []


def test_a_small_project_in_order_has_no_findings(tree: Path) -> None:
    assert findings(tree) == []


def test_a_package_that_only_another_one_needs_is_found_in_every_part_that_imports_it(tree: Path) -> None:
    (tree / "rdservice" / "web.py").write_text("import flask\nimport werkzeug\n")
    found = findings(tree)
    assert [line.partition(":")[0] for line in found] == list(FILES)
    assert all("DEP003 'werkzeug'" in line for line in found)


def test_a_deployment_may_not_import_what_only_a_larger_set_has(tree: Path) -> None:
    (tree / "rdservice" / "web.py").write_text("import flask\nimport aiohttp\n")
    (found,) = findings(tree)
    assert found.startswith("requirements.in: ")
    assert "'aiohttp'" in found


def test_a_package_that_nothing_imports_is_found(tree: Path) -> None:
    (tree / "requirements.in").write_text("flask\nrequests\n")
    found = findings(tree)
    assert "requirements.in: DEP002 'requests' defined as a dependency but not used in the codebase" in found
