"""The check that each part of the code imports what its own list of packages names."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENT, LOCAL, DEVELOPMENT = (
    shlex.split(line)[1:]
    for line in (ROOT / ".ci" / "run").read_text().replace("\\\n", "").splitlines()
    if "-m deptry" in line
)


def findings(folder: Path, part: list[str]) -> set[str]:
    """Return deptry's findings about imports, each as the code and the package."""
    done = subprocess.run(
        [sys.executable, *part, "--no-ansi"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    lines = [line.partition(": DEP0")[2] for line in done.stderr.splitlines() if ".py:" in line]
    return {f"DEP0{line.split()[0]} {line.split()[1]}" for line in lines}


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
    assert findings(tmp_path, part) == ({f"{code} '{package}'"} if code else set())
