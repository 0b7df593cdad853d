"""The checks that each part of the code imports what its own list of packages names, and that every package is used."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev.checks.check import CHECKS

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENT, LOCAL, DEVELOPMENT = (arguments for arguments in CHECKS.values() if "deptry" in arguments)


def findings(folder: Path, part: list[str]) -> set[str]:
    """Return deptry's findings, each as where it was found, the code and the package."""
    done = subprocess.run(
        [sys.executable, *part, "--no-ansi"], cwd=folder, capture_output=True, text=True, check=False
    )
    found = re.findall(r"^([\w./]+):(?:\d+:\d+:)? (DEP\d+ '\S+')", done.stderr, re.MULTILINE)
    assert done.returncode == bool(found), done.stderr
    return {f"{file}: {finding}" for file, finding in found}


@pytest.mark.parametrize("part", [DEPLOYMENT, LOCAL, DEVELOPMENT], ids=["deployment", "local", "development"])
@pytest.mark.parametrize(
    ("file", "package", "found"),
    [
        ("rdservice/web.py", "flask", ("", "", "")),
        ("rdservice/web.py", "aiohttp", ("DEP004", "", "")),
        ("rdservice/web.py", "pytest", ("DEP004", "DEP004", "")),
        ("rdservice/web.py", "jinja2", ("DEP003", "DEP003", "DEP003")),
        ("rdservice/web.py", "unheard_of", ("DEP001", "DEP001", "DEP001")),
        ("wsgi.py", "aiohttp", ("DEP004", "", "")),
        ("scripts/start.py", "aiohttp", ("", "", "")),
        ("scripts/start.py", "pytest", ("", "DEP004", "")),
        ("tests/test_web.py", "pytest", ("", "", "")),
    ],
)
def test_a_part_may_import_what_its_own_list_names(
    tmp_path: Path, part: list[str], file: str, package: str, found: tuple[str, str, str]
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"import {package}\n")
    code = found[[DEPLOYMENT, LOCAL, DEVELOPMENT].index(part)]
    # The packages that a tree of one file does not use are the matter of the test below.
    about_imports = {finding for finding in findings(tmp_path, part) if finding.startswith(file)}
    assert about_imports == ({f"{file}: {code} '{package}'"} if code else set())


def test_a_package_without_use_and_an_import_without_package_are_found_in_the_tree_itself(
    tmp_path: Path,
) -> None:
    for folder in ("rdservice", "worker", "sandbox", "scripts", "dev", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "wsgi.py", ROOT / "gunicorn.conf.py", ROOT / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    part = CHECKS["every package has a use"]
    assert findings(tmp_path, part) == set()

    lists = tmp_path / "pyproject.toml"
    text = lists.read_text()
    for begin, name in (("dependencies = [", "idle"), ("local = [", "idle-local"), ("dev = [", "idle-dev")):
        assert text.count(f"\n{begin}\n") == 1
        text = text.replace(f"\n{begin}\n", f'\n{begin}\n    "{name}",\n')
    lists.write_text(text)
    with (tmp_path / "rdservice" / "names.py").open("a") as module:
        module.write("import unheard_of\n")
    assert findings(tmp_path, part) == {
        "pyproject.toml: DEP002 'idle'",
        "pyproject.toml: DEP002 'idle-local'",
        "pyproject.toml: DEP002 'idle-dev'",
        "rdservice/names.py: DEP001 'unheard_of'",
    }
