"""Find out what is wrong with the connection to RD Station, and what to do about it.

    python scripts/debug_rdstation_integration.py [--account NAME] [--no-refresh] [--offline] [--output PATH]

Writes rdstation_debug_info.json (mode 600, without secrets) in the current folder, or PATH (- for standard output).
Exit status: 0 all is well, 1 something needs a person, 2 the diagnosis could not run.

Starts with any Python 3, with the standard library only, and goes on with the repository's .venv. A deployment that has
its packages elsewhere, as on Heroku, has no .venv: then the Python that was called is the right one.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
EXIT_COULD_NOT_RUN = 2
# Set for the program that this one execs, so that a broken .venv does not cause an endless loop.
MARK = "RDSERVICE_DIAGNOSIS_IN_VENV"


def main() -> None:
    go_on_in_venv()
    if sys.version_info < OLDEST or importlib.util.find_spec("psycopg") is None:
        give_up()
    # Instead of scripts/: the project's packages are in its parent directory.
    sys.path[0] = str(ROOT)
    try:
        from rdservice.diagnosis import command
    except ModuleNotFoundError as error:
        give_up(error.name or str(error))
    status = command.main(sys.argv[1:])
    sys.stderr.flush()
    # Not sys.exit: a thread that waits for the database or RD Station must not delay the end of the process.
    os._exit(status)


def go_on_in_venv() -> None:
    """Exec .venv's Python, unless it runs already or does not exist."""
    was_sent = os.environ.pop(MARK, None) is not None
    if Path(sys.prefix).resolve() == VENV.resolve() or not os.access(str(PYTHON), os.X_OK):
        return
    if was_sent:
        give_up()
    os.environ[MARK] = "1"
    os.execv(str(PYTHON), [str(PYTHON), str(Path(__file__).resolve())] + sys.argv[1:])  # noqa: RUF005, S606


def give_up(missing: str = "psycopg") -> NoReturn:
    """Print what to do, and exit. In English if Python is too old for the module with the translations."""
    sys.path[0] = str(ROOT)
    try:
        from rdservice.text.terminal import tell
    except Exception:  # noqa: BLE001 - whatever an old Python makes of it

        def tell(text, **values):  # type: ignore[no-untyped-def, misc]
            return text % values

    sys.stderr.write(
        tell(
            "The diagnosis cannot run: %(python)s lacks packages (%(missing)s). Run scripts/start or scripts/test once;"
            " it sets up %(venv)s.",
            python=sys.executable,
            missing=missing,
            venv=VENV,
        )
        + "\n"
    )
    sys.exit(EXIT_COULD_NOT_RUN)


if __name__ == "__main__":
    main()
