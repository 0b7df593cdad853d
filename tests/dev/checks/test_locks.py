"""The pinned requirements: complete, consistent with each other, and free of the machine that made them."""

import hashlib
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from dev.checks import compile_locks
from dev.checks.compile_locks import LOCKS

ROOT = Path(__file__).resolve().parents[3]
PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>\S+)(?P<marker> ; [^\\]+)? \\$")


def pins(lock: str) -> set[tuple[str, str]]:
    """Return the names and versions; a package may have another version for another Python."""
    lines = (ROOT / lock).read_text().splitlines()
    return {(match["name"], match["version"]) for line in lines if (match := PIN.match(line))}


def asked_for() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    lists = [project["project"]["dependencies"], groups["local"], groups["dev"]]
    return [package for packages in lists for package in packages if isinstance(package, str)]


def test_every_package_that_is_asked_for_is_pinned_and_has_its_reason() -> None:
    pinned = {name for name, _ in pins("requirements-dev.txt")}
    text = (ROOT / "pyproject.toml").read_text()
    for package in asked_for():
        assert re.split(r"[\[=]", package)[0].lower() in pinned
        assert re.search(rf'^    "{re.escape(package)}", +# \S', text, re.MULTILINE), package


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[a-z])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(lock)) > 0
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_or_path_of_a_machine_is_in_a_lock(lock: str) -> None:
    assert not re.search(r"://|--index|--find-links|--trusted|[ =]/", (ROOT / lock).read_text())


def test_the_larger_sets_hold_the_smaller_ones_in_the_same_versions() -> None:
    deployment, local, development = (pins(lock) for lock in LOCKS)
    assert deployment <= local <= development


@pytest.mark.parametrize("lock", LOCKS)
def test_pip_takes_no_package_that_runs_code_of_its_own_to_be_installed(lock: str) -> None:
    assert "--only-binary :all:" in (ROOT / lock).read_text().splitlines()


PROJECT = """
[project]
name = "project"
version = "1"
requires-python = ">=3.11"
dependencies = ["tiny"]
[dependency-groups]
local = []
dev = [{ include-group = "local" }]
"""


def publish(index: Path, version: str, build: str = "1") -> str:
    """Put a file of the package `tiny` into a package index; return its hash."""
    (index / "tiny").mkdir(parents=True, exist_ok=True)
    wheel = index / "tiny" / f"tiny-{version}-{build}-py3-none-any.whl"
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        # A number of its own makes another file of each build, also of two builds of one second.
        wheel_lines = ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any", f"Build: {build}"]
        archive.writestr(f"{info}/WHEEL", "\n".join(wheel_lines) + "\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with (index / "tiny" / "index.html").open("a") as page:
        page.write(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>\n')
    return digest


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that pip's settings name, and the locks of a project with one package of it."""
    index, project = tmp_path / "index", tmp_path / "project"
    publish(index, "1.0")
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    monkeypatch.setattr(compile_locks, "ROOT", project)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    compile_locks.compile_locks(project)
    return index


def changed(lock: str, before: str, after: str) -> None:
    file = compile_locks.ROOT / lock
    text = re.sub(before, after, file.read_text(), count=1)
    assert text != file.read_text()
    file.write_text(text)


@pytest.mark.parametrize("where", ["environment", "file"])
def test_the_packages_come_from_the_index_that_pips_settings_name(
    index: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish(index, "2.0")
    if where == "file":
        monkeypatch.delenv("PIP_INDEX_URL")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index.as_uri()}\n")
    compile_locks.compile_locks(compile_locks.ROOT, "--upgrade")
    for lock in LOCKS:
        text = (compile_locks.ROOT / lock).read_text()
        assert f"tiny==2.0 \\\n    --hash=sha256:{digest}\n" in text
        assert index.as_uri() not in text


def test_neither_a_new_release_nor_a_new_file_of_a_release_is_a_reason_to_compile_again(index: Path) -> None:
    publish(index, "1.0", build="2")
    publish(index, "2.0")
    assert compile_locks.outdated() == []


def test_a_change_of_pyproject_toml_is_found_in_every_lock_that_holds_it(index: Path) -> None:
    changed("pyproject.toml", r"local = \[\]", 'local = ["tiny"]')
    assert compile_locks.outdated() == ["requirements-local.txt", "requirements-dev.txt"]
    compile_locks.compile_locks(compile_locks.ROOT)
    assert compile_locks.outdated() == []


@pytest.mark.parametrize(
    "after", [r"sha256:%s", r"\g<0> \\\n    --hash=sha256:%s"], ids=["another", "one more"]
)
def test_a_hash_that_the_index_does_not_know_is_found(index: Path, after: str) -> None:
    changed("requirements-dev.txt", "sha256:[0-9a-f]+", after % ("0" * 64))
    assert compile_locks.outdated() == ["requirements-dev.txt"]
