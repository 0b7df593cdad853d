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
# Set for the program that this one becomes: a broken .venv must not make it go round in circles.
MARK = "RDSERVICE_DIAGNOSIS_IN_VENV"


def main() -> None:
    go_on_in_venv()
    if sys.version_info < OLDEST or importlib.util.find_spec("psycopg") is None:
        give_up()
    # In place of scripts/: the project's packages are in the folder above.
    sys.path[0] = str(ROOT)
    try:
        from rdservice.diagnosis import command
    except ModuleNotFoundError as error:
        give_up(error.name or str(error))
    status = command.main(sys.argv[1:])
    sys.stderr.flush()
    # Not sys.exit: a thread that waits for a database or for RD Station must not keep the process from ending.
    os._exit(status)


def go_on_in_venv() -> None:
    """Become .venv's Python, unless this is it or there is none."""
    was_sent = os.environ.pop(MARK, None) is not None
    if Path(sys.prefix).resolve() == VENV.resolve() or not os.access(str(PYTHON), os.X_OK):
        return
    if was_sent:
        give_up()
    os.environ[MARK] = "1"
    os.execv(str(PYTHON), [str(PYTHON), str(Path(__file__).resolve())] + sys.argv[1:])  # noqa: RUF005, S606


def give_up(missing: str = "psycopg") -> NoReturn:
    """Say what to do, and end. In English where Python is too old to read the module with the other language."""
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
