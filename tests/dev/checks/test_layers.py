"""The order of the layers, checked by import-linter with the contracts of pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev.checks.check import CHECKS

ROOT = Path(__file__).resolve().parents[3]
LAYERS = "Imports run from the top of this list to its bottom"
INSIDE = "Layers inside web, and inside diagnosis"
CIRCLES = "No circle between packages"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages that the contracts are about, as they are in the repository."""
    for package in ("rdservice", "worker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(copy: Path) -> tuple[dict[str, bool], str]:
    """Return which contracts hold, by their names, and what import-linter says."""
    # Python puts the working folder first, before the repository of a PYTHONPATH, when it runs `-c`.
    done = subprocess.run(
        [sys.executable, *CHECKS["layers"]], cwd=copy, capture_output=True, text=True, check=False
    )
    ends = {" KEPT": True, " BROKEN": False}
    holds = {
        line.removesuffix(end): kept
        for line in done.stdout.splitlines()
        for end, kept in ends.items()
        if line.endswith(end)
    }
    assert done.returncode == (0 if all(holds.values()) else 1), done.stdout + done.stderr
    return holds, done.stdout


def add(module: Path, line: str) -> None:
    """Put an import at the end of a module of the copy."""
    assert module.is_file()
    with module.open("a") as file:
        file.write(f"\n{line}\n")


def test_the_packages_as_they_are_break_no_contract(copy: Path) -> None:
    holds, _ = lint(copy)
    assert holds == {LAYERS: True, INSIDE: True, CIRCLES: True}


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("rdservice/tokens/store.py", "rdservice.accounts.connect"),
        ("rdservice/names.py", "rdservice.access.keys"),
        ("rdservice/web/http/guard.py", "worker"),
        # Siblings that may not know each other.
        ("rdservice/leads/queries.py", "rdservice.passthrough.relay"),
    ],
)
def test_an_import_of_a_higher_layer_is_named(copy: Path, module: str, imported: str) -> None:
    add(copy / module, f"import {imported}")
    holds, said = lint(copy)
    assert holds[LAYERS] is False
    importer = module.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {imported} (l." in said


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("rdservice/web/text/languages.py", "rdservice.web.http.guard"),
        ("rdservice/diagnosis/facts/probes.py", "rdservice.diagnosis.report.build"),
    ],
)
def test_an_import_of_a_higher_layer_inside_a_package_is_named(
    copy: Path, module: str, imported: str
) -> None:
    add(copy / module, f"import {imported}")
    holds, said = lint(copy)
    assert (holds[LAYERS], holds[INSIDE]) == (True, False)
    importer = module.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {imported} (l." in said


def test_a_circle_between_siblings_that_may_import_one_another_is_named(copy: Path) -> None:
    add(copy / "rdservice" / "access" / "keys.py", "import rdservice.metrics.definitions")
    assert lint(copy)[0] == {LAYERS: True, INSIDE: True, CIRCLES: True}
    add(copy / "rdservice" / "metrics" / "definitions.py", "import rdservice.access.keys")
    holds, said = lint(copy)
    assert holds == {LAYERS: True, INSIDE: True, CIRCLES: False}
    assert ".metrics -> .access (1 import)" in said
