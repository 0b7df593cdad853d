"""Make or repair `.venv`, then become the program that was asked for. Runs on a bare Python: standard library only.

    python scripts/local/bootstrap.py start
    python scripts/local/bootstrap.py test [pytest's arguments]
    python scripts/local/bootstrap.py bench [its arguments]
    python scripts/local/bootstrap.py faults [its arguments]
    python scripts/local/bootstrap.py monitoring
    python scripts/local/bootstrap.py drill [its arguments]
    python scripts/local/bootstrap.py simulate [its arguments]

Every program in `.venv` is run as `.venv/bin/python -m name`: the scripts in `.venv/bin` name their interpreter in
a first line that breaks when the path has spaces or more than 127 bytes.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from rdservice.text.terminal import tell  # noqa: E402 - needs the path above
from scripts.local.child_process import STOP_SIGNALS, kill_session, spawn  # noqa: E402 - needs the path

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
LINES_SHOWN = 20
"""How much of a failed program's output is shown. The cause is usually in its last lines."""
DISK_SPACE = 500_000_000  # bytes, of the installed packages and pip's working space

PACKAGES = {
    "start": "requirements-local.txt",
    "test": "requirements-dev.txt",
    "bench": "requirements-local.txt",
    "faults": "requirements-dev.txt",
    "monitoring": "requirements-local.txt",
    "drill": "requirements-local.txt",
    "simulate": "requirements-local.txt",
    "check": "requirements-dev.txt",
    "fix": "requirements-dev.txt",
}
PROGRAMS = {
    "start": "scripts.local.start_service",
    "test": "pytest",
    "bench": "dev.benchmarks",
    "faults": "dev.checks.run_faults",
    "monitoring": "dev.monitoring",
    "drill": "dev.alert_drill",
    "simulate": "dev.simulation",
    "check": "dev.checks.check",
    "fix": "dev.checks.fix",
}
# Programs read their standard output, so it must contain only their result.
MEASURING = ("bench", "faults", "drill", "simulate")

# pip's settings that would install packages outside of .venv.
MISLEADING = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "__PYVENV_LAUNCHER__")

# Runs a module so that it ends with this process: killed alone, ensurepip leaves a child behind.
RUN_MODULE = """
import os, runpy, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class SetupError(Exception):
    """Something is missing on this machine. The message says what to do."""


def say(text: str) -> None:
    print(text, file=sys.stderr if sys.argv[1] in MEASURING else sys.stdout, flush=True)


def main() -> None:
    program, *arguments = sys.argv[1:]
    for number in STOP_SIGNALS:
        # A shell starts background jobs with SIGINT ignored, but SIGINT should end them. Under nohup, the job should
        # survive its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    make_data_dir_absolute()
    os.chdir(ROOT)
    try:
        prepare(PACKAGES[program])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(EXIT_UNAVAILABLE)
    except PermissionError as error:
        denied = tell(
            "%(file)s cannot be written by this user: %(reason)s. Run this as the user it belongs to, or from a copy"
            " of your own.",
            file=error.filename,
            reason=error.strerror,
        )
        print("\n" + denied, file=sys.stderr)
        sys.exit(EXIT_UNAVAILABLE)
    os.execv(PYTHON, [str(PYTHON), "-m", PROGRAMS[program], *arguments])  # noqa: S606


def stop(number: int, _frame: FrameType | None) -> None:
    # An exception, so that `run` ends its child.
    sys.exit(128 + number)


def make_data_dir_absolute() -> None:
    """Resolve a relative RDSERVICE_DATA_DIR against the current directory of the command."""
    data_dir = os.environ.get("RDSERVICE_DATA_DIR", "")
    if data_dir:
        os.environ["RDSERVICE_DATA_DIR"] = os.path.abspath(data_dir)


def prepare(requirements: str) -> None:
    """Install `requirements` into `.venv` unless they are installed already."""
    if is_ready(requirements):
        return
    folder = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(tell("Another script of this folder is setting up .venv; waiting for it …"))
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        if not is_ready(requirements):
            install(requirements)
    finally:
        os.close(folder)


def fingerprint() -> dict[str, str]:
    """Return what `.venv` depends on: its path, its Python, and the pinned packages of each set."""
    facts = {"path": str(VENV), "python": sys.version}
    for name in set(PACKAGES.values()):
        facts[name] = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
    return facts


def installed() -> dict[str, str]:
    """Return what is completely installed; empty if `.venv` is missing or incomplete, or its Python is gone."""
    if not os.access(PYTHON, os.X_OK):
        return {}
    try:
        facts = json.loads(STAMP.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def is_ready(requirements: str) -> bool:
    there, wanted = installed(), fingerprint()
    return all(there.get(fact) == wanted[fact] for fact in ("path", "python", requirements))


def install(requirements: str) -> None:
    wanted = fingerprint()
    there = installed()
    # The larger set is installed on top of the smaller one. In all other cases start from scratch, so that nothing
    # of an earlier set or an interrupted run remains.
    if not there or any(wanted.get(fact) != value for fact, value in there.items()):
        make_venv()
        there = {}
    install_packages(requirements)
    # requirements-dev.txt includes the other set (see its first lines).
    covered = [
        name for name in set(PACKAGES.values()) if name == requirements or requirements == PACKAGES["test"]
    ]
    facts = {fact: wanted[fact] for fact in ("path", "python", *covered)}
    unfinished = STAMP.with_suffix(".new")
    unfinished.write_text(json.dumps(there | facts))
    unfinished.replace(STAMP)


def make_venv() -> None:
    if VENV.is_symlink() or VENV.is_file():
        raise SetupError(tell("%(folder)s is not a folder: move it away.", folder=VENV))
    if VENV.exists():
        say(tell("Recreating .venv: it is incomplete, from another folder, or for other packages …"))
        shutil.rmtree(VENV)
    else:
        say(tell("Making .venv, the folder for Python packages …"))
    if importlib.util.find_spec("ensurepip") is None:
        install_ensurepip()
    venv.EnvBuilder(with_pip=False, symlinks=True).create(VENV)
    run_module("ensurepip", "--default-pip")


def install_ensurepip() -> None:
    """Debian packs the part of Python that makes virtual environments apart."""
    command = "apt-get update && apt-get install -y --no-install-recommends python3-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(tell("This Python lacks `ensurepip`. As root run: %(command)s", command=command))
    say(tell("Installing Debian's python3-venv …"))
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # A separate session: Ctrl-C must not interrupt a write to Debian's package database.
    done = subprocess.run(
        ["sh", "-c", command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0:
        advice = tell("python3-venv could not be installed. Run as root: %(command)s", command=command)
        raise SetupError(f"{done.stdout}\n{advice}")
    importlib.invalidate_caches()


def install_packages(requirements: str) -> None:
    """Install the pinned packages of `requirements` with pip, and show the progress."""
    started = time.monotonic()
    count = len(re.findall(r"^[\w.-]+(\[.*\])?==", (ROOT / requirements).read_text(), re.MULTILINE))
    say(
        tell(
            "Installing %(count)s packages of %(requirements)s into .venv …",
            count=count,
            requirements=requirements,
        )
    )
    progress = Progress(count)
    pip = ["pip", "install", "--progress-bar", "off", "--disable-pip-version-check", "--no-input"]
    options = ["--require-hashes", "--only-binary", ":all:", "--requirement", requirements]
    if not sys.dont_write_bytecode:
        # Python compiles modules at their first import; only a small part is ever imported.
        options.append("--no-compile")
    try:
        run_module(*pip, *options, on_line=progress.note)
    finally:
        progress.clear()
    say(tell("Installed in %(seconds)s s.", seconds=round(time.monotonic() - started)))


class Progress:
    """A progress line on a terminal for pip; nothing without a terminal."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._stream = sys.stderr if sys.argv[1] in MEASURING else sys.stdout
        self._shown = self._stream.isatty()

    def note(self, line: str) -> None:
        """Process a line of pip's output."""
        if found := re.match(r"Collecting ([\w.-]+)", line):
            self._done = min(self._done + 1, self._count)
            values = {"done": self._done, "count": self._count, "package": found[1]}
            self._show(tell("  fetching %(done)s of %(count)s: %(package)s", **values))
        elif line.startswith("Installing collected packages"):
            self._show(tell("  putting %(count)s packages in place …", count=self._count))

    def clear(self) -> None:
        self._show("")

    def _show(self, text: str) -> None:
        if self._shown:
            width = shutil.get_terminal_size().columns - 1
            # Return to the start of the line, and erase to its end (ECMA-48).
            print("\r\033[K" + text[:width], end="", file=self._stream, flush=True)


def run_module(*command: str, on_line: Callable[[str], None] = lambda _line: None) -> None:
    """Run a module with the virtual environment's Python; raises SetupError with its output and a hint."""
    environment = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    process = spawn(
        [str(PYTHON), "-c", RUN_MODULE, *command],
        death_signal=signal.SIGTERM,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = []
    with process:
        try:
            for line in process.stdout or ():
                output.append(line.decode(errors="replace"))
                on_line(output[-1])
        except BaseException:
            kill_session(process)
            raise
    status = process.returncode
    if status == 0:
        return
    if shutil.disk_usage(ROOT).free < DISK_SPACE:
        hint = tell(
            "The disk that holds %(folder)s is nearly full: about %(megabytes)s MB are needed.",
            folder=ROOT,
            megabytes=DISK_SPACE // 1_000_000,
        )
    else:
        hint = tell(
            "Is this machine online? Packages come from pip's package index; PIP_INDEX_URL can name another one, and"
            " HTTPS_PROXY a proxy. Then run the command again: it continues where it stopped."
        )
    said = "".join(output[-LINES_SHOWN:]).strip()
    failed = tell("%(program)s failed.", program=command[0])
    raise SetupError(f"{said}\n\n{failed} {hint}")


if __name__ == "__main__":
    main()
