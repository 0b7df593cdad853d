"""What scripts/start becomes once `.venv` is there: the whole service on one machine, until a signal ends it.

In order: lock on the data folder, web port, PostgreSQL, sandbox, migrations, first operator, web and worker. The first
two of the services, and with them the operator, are left out where the user's own settings name a database
(DATABASE_URL) or an app of RD Station (RDSTATION_CLIENT_ID).
"""

import argparse
import contextlib
import http.client
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rdservice.text.terminal import tell
from scripts.local import first_look
from scripts.local.child_process import STOP_SIGNALS, run
from scripts.local.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from scripts.local.local_settings import (
    AlreadyRunningError,
    Credentials,
    DataDir,
    given_settings,
    make_settings,
    uses_embedded_postgres,
    uses_sandbox,
)
from scripts.local.postgres_binaries import BinariesMissingError
from scripts.local.ready_message import ready_message, sandbox_tokens
from scripts.local.sandbox_consent import ConsentError
from scripts.local.supervisor import Child, ChildEndedError, Printer, Supervisor
from scripts.local.web_port import PortError, open_sockets

ROOT = Path(__file__).resolve().parents[2]
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
EXIT_CONFIG = 78  # EX_CONFIG

READY_SECONDS = 60
# In total under 30 s, the limit for the whole shutdown. Web and worker need up to 25 s for calls to RD Station.
WEB_AND_WORKER_SECONDS = 25.5
SANDBOX_SECONDS = 1.0
POSTGRES_SECONDS = 2.0

FIRST_OPERATOR = "operator@example.com"
ALL_SCOPES = ("tokens:write", "tokens:status", "tokens:read", "leads:read", "api:call", "privacy:erase")
READY_LINE = "sandbox ready "


class StopRequested(BaseException):
    """A signal requested the end. Not an Exception, so that no handler treats it as a failure."""


class StartError(Exception):
    """The service cannot be started. The message says why; `status` is the exit status."""

    def __init__(self, message: str, status: int = EXIT_UNAVAILABLE) -> None:
        super().__init__(message)
        self.status = status


class LocalService:
    """Everything that scripts/start runs."""

    def __init__(self, data_dir: DataDir, given: dict[str, str], printer: Printer) -> None:
        self._data_dir = data_dir
        self._given = given
        self._say = printer.say
        self._supervisor = Supervisor(printer)
        self._postgres: EmbeddedPostgres | None = None
        self._sockets: list[socket.socket] = []
        self._sandbox_url = ""
        self._settings: dict[str, str] = {}
        self._environment = os.environ | {
            "RDSERVICE_DATA_DIR": str(data_dir.path),
            "PYTHONUNBUFFERED": "1",
            # The service reads .env itself; flask would copy it into the environment.
            "FLASK_SKIP_DOTENV": "1",
        }
        no_proxy = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy", ""), "127.0.0.1,localhost,::1"]
        self._environment["NO_PROXY"] = self._environment["no_proxy"] = ",".join(filter(None, no_proxy))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._sockets[0].getsockname()[1]}"

    @property
    def _is_trial(self) -> bool:
        """Whether this start runs both database and sandbox, so that it may create and show credentials."""
        return uses_embedded_postgres(self._given) and uses_sandbox(self._given)

    def start(self) -> None:
        """Start everything and return when the web application is ready."""
        self._sockets = open_sockets(self._given.get("PORT"))
        if "PORT" not in self._given and not self.url.endswith(":8000"):
            self._say(
                tell("Port 8000 is taken by another program: this one listens on %(url)s", url=self.url)
            )
        self._data_dir.note_running(self.url)
        if uses_embedded_postgres(self._given):
            self._start_postgres()
        self._write_settings()
        sandbox = self._start_sandbox() if uses_sandbox(self._given) else None
        self._say(tell("Preparing the database …"))
        self._flask("release")
        if sandbox is not None:
            self._wait_for_sandbox(sandbox)
        is_first = self._is_trial and self._data_dir.read_credentials() is None
        credentials = self._first_credentials() if self._is_trial else None
        self._start_web_and_worker()
        self._wait_until_ready()
        if credentials is not None:
            credentials = self._with_valid_key(credentials)
            self._data_dir.write_credentials(credentials)
            if is_first:
                self._connect_for_a_first_look(credentials)
        self._supervisor.turn()  # so that what the children said comes before the message
        message = ready_message(self.url, self._data_dir.path, self._settings, credentials, is_first=is_first)
        self._say(message)
        self._supervisor.restarts_children = True

    def watch(self) -> NoReturn:
        """Supervise everything until a signal raises StopRequested."""
        while True:
            self._supervisor.turn()
            if self._postgres is not None and not self._postgres.is_running:
                log_file = self._postgres.log_file
                self._say(tell("PostgreSQL has died (its log: %(file)s); starting it again …", file=log_file))
                self._postgres.start()
                self._say(tell("PostgreSQL is back"))

    def stop(self) -> None:
        """Stop everything, PostgreSQL last."""
        self._supervisor.stop("web", "worker", seconds=WEB_AND_WORKER_SECONDS)
        for sock in self._sockets:
            sock.close()
        self._supervisor.stop("sandbox", seconds=SANDBOX_SECONDS)
        if self._postgres is not None:
            self._postgres.stop(timeout_s=POSTGRES_SECONDS)

    def _start_postgres(self) -> None:
        self._say(tell("Starting PostgreSQL …"))
        self._postgres = EmbeddedPostgres(self._data_dir.path / "postgres")
        if not self._postgres.is_initialised:
            self._data_dir.forget_credentials()
        self._postgres.start()

    def _write_settings(self, **found: str) -> None:
        """Write the settings file, with what is `found` only while starting, and remember what is in force."""
        kept = self._data_dir.kept_settings() | found
        database_url = self._postgres.url if self._postgres is not None else None
        made = make_settings(kept, self._given, url=self.url, database_url=database_url)
        self._data_dir.write_settings(made)
        self._settings = made | self._given

    def _start_sandbox(self) -> Child:
        """Start on the port of the last run, so that its URLs still work; else on any free port."""
        state = self._data_dir.path / "sandbox" / "state.db"
        state.parent.mkdir(mode=0o700, exist_ok=True)
        last_port = self._settings.get("RDSTATION_API_URL", "").rpartition(":")[2]
        port = last_port if last_port.isdecimal() and _is_free(int(last_port)) else "0"
        client = {
            f"SANDBOX_{name}": self._settings.get(f"RDSTATION_{name}", "")
            for name in ("CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI")
        }
        self._say(tell("Starting the sandbox, an imitation of RD Station …"))
        command = [
            sys.executable,
            "-m",
            "sandbox",
            "--host",
            "127.0.0.1",
            "--state",
            str(state),
            "--port",
            port,
        ]
        return self._supervisor.start(
            "sandbox", command, self._environment | client, on_line=self._note_sandbox_url
        )

    def _wait_for_sandbox(self, sandbox: Child) -> None:
        give_up = time.monotonic() + READY_SECONDS
        while not self._sandbox_url:
            self._supervisor.turn()
            if time.monotonic() > give_up:
                raise StartError(tell("the sandbox did not say that it is ready"))
        # A restart must use the port that the service's settings contain by now.
        sandbox.command = [*sandbox.command[:-1], self._sandbox_url.rpartition(":")[2]]

    def _note_sandbox_url(self, line: str) -> None:
        url = line.removeprefix(READY_LINE).strip()
        if line.startswith(READY_LINE) and url != self._sandbox_url:
            self._sandbox_url = url
            self._write_settings(RDSTATION_API_URL=url)

    def _flask(self, *arguments: str, text: str | None = None) -> str:
        """Run one of the service's commands; returns its standard output. Raises StartError."""
        command = [sys.executable, "-m", "flask", *arguments]
        done = run(command, env=self._environment, text=text, stderr=subprocess.PIPE)
        if done.returncode != 0:
            output = (done.stdout + done.stderr).decode(errors="replace").strip()
            status = EXIT_CONFIG if done.returncode == EXIT_CONFIG else EXIT_UNAVAILABLE
            failed = tell("flask %(command)s failed:", command=shlex.join(arguments[:2]))
            raise StartError(f"{failed}\n{output}", status)
        return done.stdout.decode().strip()

    def _first_credentials(self) -> Credentials:
        """Those of the last start, or of an operator and a key made now."""
        known = self._data_dir.read_credentials()
        email, password, api_key = (
            (known.email, known.password, known.api_key) if known else self._first_operator()
        )
        return Credentials(
            url=self.url,
            email=email,
            password=password,
            api_key=api_key,
            sandbox_url=self._sandbox_url,
            database_url=self._settings["DATABASE_URL"],
        )

    def _first_operator(self) -> tuple[str, str, str]:
        password = secrets.token_urlsafe(12)
        try:
            self._flask("operators", "create", FIRST_OPERATOR, "--password-stdin", text=password + "\n")
        except StartError:
            # An interrupted start created the operator, or the credentials were deleted: the password is lost.
            self._flask(
                "operators", "reset-password", FIRST_OPERATOR, "--password-stdin", text=password + "\n"
            )
        return FIRST_OPERATOR, password, self._create_key()

    def _create_key(self) -> str:
        scopes = [part for scope in ALL_SCOPES for part in ("--scope", scope)]
        return self._flask("keys", "create", "scripts/start", *scopes)

    def _with_valid_key(self, credentials: Credentials) -> Credentials:
        """The same, with a new key where the database no longer knows the one of the last start."""
        headers = {"Authorization": f"Bearer {credentials.api_key}"}
        if self._get("/rd/tokens", headers) != http.HTTPStatus.UNAUTHORIZED:
            return credentials
        self._say(tell("The API key of the last start is no longer valid: making a new one …"))
        return Credentials(**vars(credentials) | {"api_key": self._create_key()})

    def _connect_for_a_first_look(self, credentials: Credentials) -> None:
        self._say(tell("Connecting an account of the sandbox, for the pages to show something …"))
        try:
            pair = sandbox_tokens(credentials, self._settings, first_look.RD_ACCOUNT)
            first_look.connect(credentials, pair, self._supervisor.turn)
            # The web processes write their lines of requests a moment later.
            self._supervisor.turn()
        except (ConsentError, first_look.FirstLookError) as error:
            self._say(
                tell(
                    "The account for a first look could not be connected (%(reason)s); everything else works.",
                    reason=error,
                )
            )

    def _start_web_and_worker(self) -> None:
        self._say(tell("Starting web and worker …"))
        descriptors = [sock.fileno() for sock in self._sockets]
        binds = [part for descriptor in descriptors for part in ("--bind", f"fd://{descriptor}")]
        environment = self._environment | {"PORT": self.url.rpartition(":")[2]}
        command = [sys.executable, "-m", "gunicorn", *binds, "wsgi:app"]
        self._supervisor.start("web", command, environment, pass_fds=descriptors)
        self._supervisor.start("worker", [sys.executable, "-m", "worker"], environment)

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + READY_SECONDS
        status = None
        while status != http.HTTPStatus.OK:
            self._supervisor.turn(0.05)
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = self._get("/readyz", {})
            if time.monotonic() > give_up:
                raise StartError(
                    tell(
                        "%(url)s/readyz did not answer 200 within %(seconds)s s, but %(status)s",
                        url=self.url,
                        seconds=READY_SECONDS,
                        status=status,
                    )
                )

    def _get(self, path: str, headers: dict[str, str]) -> int:
        """Return the status with which the web application responds."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def main() -> int:
    argparse.ArgumentParser(
        prog="scripts/start",
        description="Run the whole service on this machine until Ctrl-C. Environment: PORT (8000 or the next free "
        "one), RDSERVICE_DATA_DIR (.data), and the service's settings.",
    ).parse_args()
    given = given_settings(ROOT, os.environ)
    if given.get("DYNO") or given.get("RDSERVICE_ENV") == "production":
        print(
            "scripts/start is for one machine, and the settings say production (DYNO or RDSERVICE_ENV). A deployment "
            "runs the commands in Procfile.",
            file=sys.stderr,
        )
        return EXIT_CONFIG
    printer = Printer()
    try:
        return _run(given, printer)
    finally:
        printer.close()


def _run(given: dict[str, str], printer: Printer) -> int:
    for number in STOP_SIGNALS:
        # Under nohup, the program must survive its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _request_stop)
    service = None
    try:
        data_dir = DataDir(Path(os.environ.get("RDSERVICE_DATA_DIR") or ROOT / ".data"))
        service = LocalService(data_dir, given, printer)
        service.start()
        return service.watch()
    except StopRequested:
        printer.say(tell("Stopping …"))
        return 0
    except StartError as error:
        printer.say(f"\n{error}")
        return error.status
    except ChildEndedError as error:
        printer.say(f"\n{error}")
        return EXIT_CONFIG if error.status == EXIT_CONFIG else EXIT_UNAVAILABLE
    except (AlreadyRunningError, PortError, EmbeddedPostgresError, BinariesMissingError) as error:
        printer.say(f"\n{error}")
        return EXIT_UNAVAILABLE
    except PermissionError as error:
        denied = tell(
            "%(file)s cannot be used by this user. Choose another folder: RDSERVICE_DATA_DIR=…",
            file=error.filename,
        )
        printer.say("\n" + denied)
        return EXIT_UNAVAILABLE
    finally:
        _ignore_signals()
        if service is not None:
            service.stop()


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()  # one is enough: the next would interrupt the orderly end
    raise StopRequested


def _ignore_signals() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
