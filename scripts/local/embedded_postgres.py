"""An embedded PostgreSQL server: a child process that needs no installation, no root and no fixed port.

It listens on a Unix socket in a private folder only, and asks everyone for a random password (scram-sha-256).

PostgreSQL refuses to run as root. Started by root it runs as a numeric user that nothing else uses, and the service's
folder may lie where that user cannot go, such as /root. So the server gets its data folder as an open file descriptor
and knows it by the name /proc/self/fd/N, which needs no way through the folders above it. Its programs need a real
path: where that user cannot reach them, a copy is put into the private folder.
"""

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from rdservice.text.terminal import tell
from scripts.local import postgres_binaries
from scripts.local.child_process import kill_session, run, spawn

DATABASE = "rdservice"

# Reserved by Debian's policy (section 9.2.2) and outside the range that systemd hands out (61184 to 65519), so that
# the server shares its user with no other service.
PRIVATE_USER_IDS = range(65520, 65534)

# A socket's path must fit into sockaddr_un.sun_path: 107 bytes and a zero (unix(7)).
SOCKET_NAME = ".s.PGSQL.5432"
LONGEST_SOCKET_FOLDER = 107 - len("/" + SOCKET_NAME)
RUNTIME_PREFIX = "rdservice-"

START_SECONDS = 60
LOCK_SECONDS = 15
LARGEST_LOG = 1_000_000  # bytes

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    # Files in the data folder: /dev/shm is 64 MB in a container, or missing.
    "dynamic_shared_memory_type": "mmap",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Statements and DETAIL lines may contain personal data.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class EmbeddedPostgresError(Exception):
    """The server cannot be used. The message says why and what to do."""


class EmbeddedPostgres:
    """A PostgreSQL server whose data lives in the folder `data_dir`, running from `start()` to `stop()`.

    It ends with the process (more exactly the thread, see `spawn`) that started it, however that ends. `settings` are
    server settings that override SETTINGS. `bin_dir` holds the programs of another PostgreSQL than the wheel's.
    """

    def __init__(
        self, data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._folder = Path(os.path.abspath(data_dir))
        self._bin_dir = (bin_dir or postgres_binaries.wheel_binaries()).resolve()
        self._settings = SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._runtime: Path | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """The superuser's `postgresql://` URL of the database `rdservice`; holds the password."""
        return self._url_of(DATABASE)

    @property
    def pid(self) -> int | None:
        """The process id of the server's first process; None before `start()` and after `stop()`."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def is_initialised(self) -> bool:
        """Whether the data folder holds a database already."""
        return self._cluster.exists()

    @property
    def log_file(self) -> Path:
        return self._folder / "server.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it accepts connections; an empty data folder is initialised first.

        May be called again after the server died: `url` stays the same. Raises EmbeddedPostgresError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._lock_folder()
        try:
            self._remove_leftovers()
            user = self._choose_user()
            runtime = self._runtime = self._runtime or self._make_runtime(user)
            bin_dir = postgres_binaries.reachable_binaries(self._bin_dir, runtime, user)
            self._check_version(bin_dir)
            if not self.is_initialised:
                self._create_cluster(bin_dir, runtime, user)
            self._password = self._read_password()
            self._process = self._launch(bin_dir, runtime, user, lock)
            self._wait_until_ready(self._process)
            self._create_database()
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(lock)

    def stop(self, *, timeout_s: float = 15) -> None:
        """Shut the server down (clients are disconnected, nothing is lost) and remove the private folder.

        After `timeout_s` seconds the shutdown is forced; the next start then recovers from the log.
        """
        if self._process is not None:
            for number, seconds in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 1.0)):
                self._process.send_signal(number)
                try:
                    self._process.wait(timeout=seconds)
                except subprocess.TimeoutExpired:
                    continue
                break
            kill_session(self._process)
            self._process.wait()
            self._process = None
        if self._runtime is not None:
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._runtime_note.unlink(missing_ok=True)
            self._runtime = None

    @property
    def _cluster(self) -> Path:
        return self._folder / "cluster"

    @property
    def _password_file(self) -> Path:
        return self._folder / "password"

    @property
    def _runtime_note(self) -> Path:
        return self._folder / "runtime-folder"

    def _url_of(self, database: str) -> str:
        if self._runtime is None:
            raise RuntimeError("the embedded PostgreSQL has not been started")
        return f"postgresql://postgres:{quote(self._password)}@/{database}?host={quote(str(self._runtime), safe='')}"

    def _lock_folder(self) -> int:
        """Return a locked descriptor of the folder. While it is locked, no other server runs on this folder.

        The server and its children inherit the descriptor, so the lock is theirs until the last of them has ended,
        in particular when their parent was killed and they are still shutting down.
        """
        lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        give_up = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > give_up:
                    os.close(lock)
                    raise EmbeddedPostgresError(
                        tell(
                            "another PostgreSQL is running on %(folder)s: stop it first, or use another data folder",
                            folder=self._folder,
                        )
                    ) from None
                time.sleep(0.05)

    def _remove_leftovers(self) -> None:
        """Remove what killed servers left. No server runs here, even if another process has its process id by now."""
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        for unfinished in self._folder.glob("initdb-*"):
            shutil.rmtree(unfinished)
        if self._runtime is not None:
            for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
                (self._runtime / name).unlink(missing_ok=True)
        elif self._runtime_note.exists():
            left = Path(self._runtime_note.read_text())
            if left.name.startswith(RUNTIME_PREFIX) and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)

    def _choose_user(self) -> int | None:
        """The numeric user to run as, None for our own."""
        owner = self._cluster.stat().st_uid if self.is_initialised else None
        if os.geteuid() == 0:
            return owner or secrets.choice(PRIVATE_USER_IDS)
        if owner not in (None, os.geteuid()):
            raise EmbeddedPostgresError(
                tell(
                    "the database in %(folder)s belongs to another user (user id %(owner)s): run as that user, or use"
                    " another data folder",
                    folder=self._cluster,
                    owner=owner,
                )
            )
        return None

    def _make_runtime(self, user: int | None) -> Path:
        """A new private folder for the socket, its path short enough."""
        longest = LONGEST_SOCKET_FOLDER - len(f"/{RUNTIME_PREFIX}12345678")
        for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/run", "/dev/shm"):  # noqa: S108 - see mkdtemp
            if len(os.fsencode(parent)) > longest or not os.path.isdir(parent):
                continue
            if not postgres_binaries.open_to(user, Path(parent)):
                continue
            try:
                runtime = Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX, dir=parent))
            except OSError:
                continue
            self._runtime_note.write_text(str(runtime))
            if user is not None:
                os.chown(runtime, user, user)
            return runtime
        raise EmbeddedPostgresError(
            tell("no folder for PostgreSQL's socket: neither /tmp nor /var/tmp can be written")
        )

    def _check_version(self, bin_dir: Path) -> None:
        if not self.is_initialised:
            return
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        ours = postgres_binaries.major_version(bin_dir)
        if made_by != ours:
            raise EmbeddedPostgresError(
                tell(
                    "the database in %(cluster)s is of PostgreSQL %(made_by)s, this is PostgreSQL %(ours)s: export it"
                    " with the version of this service that made it (pg_dump), or move %(folder)s away to begin with an"
                    " empty database",
                    cluster=self._cluster,
                    made_by=made_by,
                    ours=ours,
                    folder=self._folder,
                )
            )

    def _create_cluster(self, bin_dir: Path, runtime: Path, user: int | None) -> None:
        """Initialise in a temporary folder, so that an incomplete database is never used."""
        password = secrets.token_urlsafe(32)
        self._password_file.unlink(missing_ok=True)
        _write_private(self._password_file, password)
        staging = Path(tempfile.mkdtemp(prefix="initdb-", dir=self._folder))
        # initdb, unlike the server, requires a user with a name.
        maker = None if user is None else _unprivileged_user_with_a_name()
        if maker is not None:
            for folder in (staging, runtime):  # the latter may hold the programs
                os.chown(folder, maker, maker)
        data = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        secret = os.memfd_create("password")
        try:
            os.write(secret, password.encode())
            command = [str(bin_dir / "initdb"), f"--pgdata=/proc/self/fd/{data}", "--username=postgres"]
            command += [f"--pwfile=/proc/self/fd/{secret}", "--auth=scram-sha-256"]
            command += ["--encoding=UTF8", "--locale=C.UTF-8"]
            if self._settings.get("fsync") == "off":
                command.append("--no-sync")
            environment = postgres_binaries.environment(bin_dir)
            done = run(command, env=environment, pass_fds=(data, secret), user=maker)
        finally:
            os.close(data)
            os.close(secret)
        if done.returncode != 0:
            shutil.rmtree(staging)
            output = done.stdout.decode(errors="replace").strip()
            raise EmbeddedPostgresError(
                tell("PostgreSQL could not create a database in %(folder)s:", folder=self._folder)
                + f"\n{output}"
            )
        if user is not None:
            _give_to(user, staging)
            os.chown(runtime, user, user)
        staging.rename(self._cluster)

    def _read_password(self) -> str:
        try:
            return self._password_file.read_text()
        except FileNotFoundError:
            raise EmbeddedPostgresError(
                tell(
                    "%(file)s is missing, and without it the database beside it cannot be opened: restore that file, or"
                    " move %(folder)s away to begin with an empty database",
                    file=self._password_file,
                    folder=self._folder,
                )
            ) from None

    def _launch(self, bin_dir: Path, runtime: Path, user: int | None, lock: int) -> subprocess.Popen[bytes]:
        settings = self._settings | {"unix_socket_directories": str(runtime)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        if self.log_file.exists() and self.log_file.stat().st_size > LARGEST_LOG:
            self.log_file.replace(self._folder / "server.log.1")
        data = os.open(self._cluster, os.O_RDONLY | os.O_DIRECTORY)
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return spawn(
                [str(bin_dir / "postgres"), "-D", f"/proc/self/fd/{data}", *options],
                # The immediate shutdown: the server kills its children, and recovers at the next start.
                death_signal=signal.SIGQUIT,
                env=postgres_binaries.environment(bin_dir),
                stdout=log,
                stderr=log,
                pass_fds=(data, lock),
                user=user,
            )
        finally:
            os.close(data)
            os.close(log)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._url_of("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                reason = str(error)
            if process.poll() is not None:
                reason = tell("ended with status %(status)s", status=process.returncode)
            elif time.monotonic() < give_up:
                time.sleep(0.02)
                continue
            log_end = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-10:])
            raise EmbeddedPostgresError(
                tell(
                    "PostgreSQL did not start: %(reason)s. The end of %(file)s:",
                    reason=reason,
                    file=self.log_file,
                )
                + f"\n{log_end}"
            )

    def _create_database(self) -> None:
        with psycopg.connect(self._url_of("postgres"), autocommit=True) as conn:
            if conn.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _unprivileged_user_with_a_name() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise EmbeddedPostgresError(
            tell(
                "PostgreSQL does not run as root, and this machine has no user `nobody` to make a database with: run"
                " this as an ordinary user"
            )
        ) from None


def _give_to(user: int, folder: Path) -> None:
    for folder_path, _, files in os.walk(folder):
        for path in (folder_path, *(os.path.join(folder_path, name) for name in files)):
            os.chown(path, user, user, follow_symlinks=False)


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
