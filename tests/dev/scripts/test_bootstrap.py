"""`.venv` is made, kept, and repaired when it no longer fits."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local import bootstrap

ROOT = Path(__file__).resolve().parents[3]
LOCAL, DEVELOPMENT = "requirements-local.txt", "requirements-dev.txt"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def first_outputs() -> list[str]:
    return []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, first_outputs: list[str]) -> Path:
    """The repository's set-up without any package, made ready by two starts at once.

    No script's first line could hold its path.
    """
    folder = tmp_path_factory.mktemp("copy") / ("a long path with spaces " * 6).strip()
    (folder / "scripts" / "local").mkdir(parents=True)
    for name in ("__init__.py", "local/__init__.py", "local/bootstrap.py", "local/child_process.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    (folder / "rdservice").mkdir()
    shutil.copy(ROOT / "rdservice" / "__init__.py", folder / "rdservice")
    for name in ("text", "translations"):
        shutil.copytree(ROOT / "rdservice" / name, folder / "rdservice" / name)
    for name in (LOCAL, DEVELOPMENT):
        (folder / name).write_text("# nothing\n")
    (folder / "scripts" / "local" / "start_service.py").write_text(
        "import sys\nprint('started by', sys.prefix)\n"
    )
    both = [
        subprocess.Popen(command(folder, "start"), cwd="/", stdout=subprocess.PIPE, text=True) for _ in "12"
    ]
    first_outputs += [process.communicate(timeout=120)[0] for process in both]
    return folder


def command(checkout: Path, program: str) -> list[str]:
    return [sys.executable, str(checkout / "scripts" / "local" / "bootstrap.py"), program]


def start(checkout: Path) -> str:
    done = subprocess.run(
        command(checkout, "start"), cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_of_two_starts_at_once_one_makes_it_and_both_run(checkout: Path, first_outputs: list[str]) -> None:
    assert sum("Making .venv" in output for output in first_outputs) == 1
    assert all(f"started by {checkout / '.venv'}\n" in output for output in first_outputs)


def test_the_next_start_has_nothing_to_do(checkout: Path) -> None:
    assert start(checkout) == f"started by {checkout / '.venv'}\n"


def test_a_moved_one_is_made_anew(checkout: Path) -> None:
    moved = checkout.with_name("moved")
    shutil.copytree(checkout, moved, symlinks=True)
    output = start(moved)
    assert "Recreating .venv" in output
    assert output.endswith(f"started by {moved / '.venv'}\n")


def test_an_unfinished_or_outdated_one_is_not_taken_for_ready(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", checkout)
    for name in ("VENV", "PYTHON", "STAMP"):
        inside = getattr(bootstrap, name).relative_to(ROOT)
        monkeypatch.setattr(bootstrap, name, checkout / inside)
    assert bootstrap.is_ready(LOCAL)
    assert not bootstrap.is_ready(DEVELOPMENT)

    for file, damaged in ((checkout / LOCAL, "# other packages\n"), (bootstrap.STAMP, '{"path"')):
        good = file.read_text()
        file.write_text(damaged)
        assert not bootstrap.is_ready(LOCAL)
        file.write_text(good)
    assert bootstrap.is_ready(LOCAL)

    python = bootstrap.PYTHON.readlink()
    bootstrap.PYTHON.unlink()
    assert not bootstrap.is_ready(LOCAL)
    bootstrap.PYTHON.symlink_to(python)
    assert bootstrap.is_ready(LOCAL)


@pytest.mark.parametrize("watched", [True, False])
def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere(
    watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "start"])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: watched)
    progress = bootstrap.Progress(2)
    for line in (
        "Collecting flask==3.1 (from -r requirements-local.txt (line 7))",
        "  Using cached flask-3.1.whl",
        "Collecting psycopg[binary]==3.3 (from -r requirements-local.txt (line 9))",
        "Installing collected packages: flask, psycopg",
    ):
        progress.note(line)
    progress.clear()
    shown = [text.strip() for text in capsys.readouterr().out.split("\r\033[K")]
    told = ["", "fetching 1 of 2: flask", "fetching 2 of 2: psycopg", "putting 2 packages in place …", ""]
    assert shown == (told if watched else [""])


def test_a_failed_installation_says_what_to_do(checkout: Path) -> None:
    (checkout / DEVELOPMENT).write_text(f"pytest==0 --hash=sha256:{'0' * 64}\n")
    offline = {"PIP_NO_INDEX": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command(checkout, "test"), env=offline, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 69
    assert "online?" in done.stderr


@pytest.mark.parametrize(("keeps_none", "leaves_out"), [(False, True), (True, False)])
def test_pip_compiles_where_python_would_keep_nothing_that_it_compiles(
    monkeypatch: pytest.MonkeyPatch, keeps_none: bool, leaves_out: bool
) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(bootstrap, "run_module", lambda *command, on_line: commands.append(command))
    monkeypatch.setattr(bootstrap, "say", lambda _text: None)
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "start"])
    monkeypatch.setattr(sys, "dont_write_bytecode", keeps_none)
    bootstrap.install_packages("requirements.txt")
    assert ("--no-compile" in commands[0]) is leaves_out
