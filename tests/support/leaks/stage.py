"""The real processes with planted secrets, and the places in which those may turn up."""

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import parse_qs, urlsplit

import psycopg
import requests

from rdservice.access import keys, operators, passwords
from rdservice.config.settings import Settings
from rdservice.database import migrate
from rdservice.encryption import KeyRing, ValueDamaged
from rdservice.events.subscriptions import store as subscriptions
from rdservice.tokens import store
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.leaks.planted import Planted
from tests.support.local_processes import command_line, descendants
from tests.support.processes import REPOSITORY, Processes, Web
from tests.support.sandbox_process import SandboxProcess

HOST = "app.example.com"
REDIRECT_URI = f"https://{HOST}/rd/callback"
UNFENCED = Path(__file__).resolve().parent / "unfenced"
TIMEOUT_S = 40
PROGRAM_TIMEOUT_S = 90
"""For a program, of which three start side by side and `flask release` starts another: it ends one that hangs."""
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')

# What a platform's server writes by default; the embedded one writes less.
TALKATIVE = {"log_min_error_statement": "error", "log_error_verbosity": "default"}

# Fixed, so that a value in a failed run's log is known for one of these.
SECRETS = {
    "client_secret": "cs1-9f8e7d6c5b4a39281706f5e4d3c2b1a0",
    "second_client_secret": "cs2-0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "secret_key": "sk-Qm7Zt4Xw9Lr2Vb6Nc8Jd5Hf3Gk1Pq0Ys",
    "metrics_token": "mt-Ue4Io9Pa2Sd7Fg1Hj6Kl3Zx8Cv5Bn0Mq",
    "notify_password": "np-Hy6Tg5Rf4Ed3Ws2Qa1Zx9Cv8Bn7",
    "notify_path": "nu-Lo9Ki8Ju7Hy6Gt5Fr4De3Sw2Aq1",
    "notify_header": "nh-Pl0Ok9Ij8Uh7Yg6Tf5Rd4Es3Wa",
    "encryption_key": "cGxhbnRlZC1lbmNyeXB0aW9uLWtleS0zMi1ieXRlcyE=",
    "old_encryption_key": "c0ffee11" * 8,
    "operator_password": "right horse, planted battery",
    "wrong_password": "wrong horse, planted battery",
    "new_password": "next horse, planted battery",
    "operator_email": "olga.plantada@oficina-um.example",
    "second_operator": "bruno.plantado@sede-dois.example",
    "account": "conta.plantada@cliente-tres.example",
    "lead_email": "pessoa.plantada@caixa-quatro.example",
    "lead_phone": "+55 21 98765-4321",
    "lead_name": "Plantada da Silva Sauro",
    "uploaded_access_token": "hand-made-access-Aa1Bb2Cc3Dd4Ee5Ff6",
    "uploaded_refresh_token": "hand-made-refresh-Gg7Hh8Ii9Jj0Kk1Ll2",
    "wrong_code": "wrong-code-Mm3Nn4Oo5Pp6Qq7Rr8",
    "wrong_state": "wrong-state-Ss9Tt0Uu1Vv2Ww3Xx4",
    "wrong_secret": "wrong-secret-Zz1Yy2Xx3Ww4Vv5Uu6Tt7Ss8Rr9Qq0P",
    "malformed_key": "rdk_malformed-key-Yy5Zz6Aa7Bb8Cc9",
    "unknown_key": "rdk_abcdefgh_" + "Dd0Ee1Ff2Gg3Hh4Ii5Jj6Kk7Ll8Mm9Nn0Oo1Pp2Qq3",
}


@dataclass
class Visitor:
    """Who sends requests: an Authorization header, or cookies and the CSRF token of a page."""

    bearer: str | None = None
    cookie: str | None = None
    csrf_token: str | None = None


@dataclass
class Stage:
    """A deployment behind a router, whose RD Station is the sandbox; `production`: the second fence stands."""

    folder: Path
    production: bool
    postgres: EmbeddedPostgres
    sandbox: SandboxProcess
    planted: Planted
    settings: Settings
    processes: Processes
    web: Web
    leaks: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    """Error codes that were answered."""
    request_ids: set[str] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)
    """What commands wrote to stderr."""
    visitors: dict[str, Visitor] = field(default_factory=dict, repr=False)
    _calls: int = 0

    # -- asking and running

    def call(
        self,
        method: str,
        path: str,
        by: str = "nobody",
        *,
        shown: Iterable[str] = (),
        html: bool = False,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> requests.Response:
        """Send a request as the router does, and look at all of the answer. `shown`: what it may hold."""
        visitor = self.visitors[by]
        sent = {
            "Host": HOST,
            "X-Forwarded-Proto": "https",
            # Another address each time: this is not about the limits.
            "X-Forwarded-For": f"198.18.{self._calls // 250}.{self._calls % 250 + 1}",
            "Accept": "text/html" if html else "*/*",
            "Referer": f"https://{HOST}/",
        }
        self._calls += 1
        if visitor.bearer is not None:
            sent["Authorization"] = f"Bearer {visitor.bearer}"
        elif visitor.cookie is not None:
            sent |= {"Cookie": visitor.cookie, "X-CSRFToken": visitor.csrf_token or ""}
        response = requests.request(
            method,
            self.web.url + path,
            headers=sent | dict(headers or {}),
            allow_redirects=False,
            timeout=TIMEOUT_S,
            **more,
        )
        self._keep_cookie(visitor, response)
        self._look_at(f"{method} {path.partition('?')[0]} by {by}", response, shown)
        return response

    def flask(
        self, *arguments: str, text: str | None = None, shown: Iterable[str] = (), **variables: str
    ) -> int:
        """Run a command and look at both its outputs. Return its exit status."""
        return self.program(["-m", "flask", "--app", "wsgi", *arguments], text=text, shown=shown, **variables)

    def program(
        self, command: list[str], *, text: str | None = None, shown: Iterable[str] = (), **variables: str
    ) -> int:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=self.processes.variables | variables,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT_S,
            check=False,
        )
        name = " ".join(command[3:])
        made = re.findall(r"rdk_[a-z2-7]{8}_[\w-]+", done.stdout)
        self.expect_clean(f"stdout of {name}", done.stdout, shown)
        for key in made:
            self.planted.add(**{f"made_key_{key[4:12]}": key})
        self.expect_clean(f"stderr of {name}", done.stderr, shown)
        self.outputs += done.stderr.splitlines()
        return done.returncode

    # -- planting

    def log_in(self) -> None:
        """Fail once, then open the operator's session."""
        self.visitors["operator"] = Visitor()
        for name in ("wrong_password", "operator_password"):
            page = self.call("GET", "/login", "operator", html=True)
            form = {"email": self.planted["operator_email"], "password": self.planted[name]}
            response = self.call(
                "POST",
                "/login",
                "operator",
                html=True,
                shown=["operator_email"],
                data=form | {"csrf_token": CSRF.findall(page.text)[0]},
            )
        assert response.status_code == 303, response.text
        page = self.call("GET", "/", "operator", html=True, shown=["operator_email"])
        assert page.status_code == 200, page.text

    def store_account(
        self, account_id: str, access_token: str, refresh_token: str, *, due: bool = True
    ) -> None:
        """Store a pair, planted by now, as the service does."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as conn:
            store.authorize(
                conn,
                KeyRing(self.settings.encryption_keys),
                account_id,
                access_token=access_token,
                refresh_token=refresh_token,
                expires_in_s=86_400,
                verified=True,
                proven=True,
            )
            if due:
                conn.execute(
                    "UPDATE rdstation_tokens SET refresh_after = rd_now() WHERE account_id = %s", [account_id]
                )
        self.plant_stored_tokens()

    def sql(self, statement: LiteralString) -> None:
        with psycopg.connect(self.settings.database_url, autocommit=True) as conn:
            conn.execute(statement)

    def begin_authorization(self) -> str:
        """Return a new `state`, planted."""
        response = self.call("GET", "/rd/login?account_id=" + self.planted["account"], "operator")
        state = parse_qs(urlsplit(response.headers["Location"]).query)["state"][0]
        self.planted.add(**{f"state_{self._calls}": state})
        return state

    def connect(self) -> None:
        """Connect the planted account in the browser."""
        state, code = self.begin_authorization(), self.sandbox.code()
        self.planted.add(**{f"code_{self._calls}": code})
        response = self.call("GET", f"/rd/callback?code={code}&state={state}", "operator", html=True)
        assert response.status_code == 303, response.text
        self.plant_stored_tokens()

    def plant_webhook_secret(self) -> None:
        """Let RD Station deliver events of the planted account."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as conn:
            secret = subscriptions.begin(conn, self.planted["account"])
            assert secret is not None
            hashed = subscriptions.hash_of(secret)
            assert subscriptions.complete(conn, self.planted["account"], hashed, {})
        self.planted.add(webhook_secret=secret)

    def plant_stored_tokens(self) -> None:
        """Whatever tokens the rows hold by now."""
        ring = KeyRing(self.settings.encryption_keys)
        with psycopg.connect(self.settings.database_url, autocommit=True) as conn:
            rows = conn.execute(
                "SELECT account_id, access_token, refresh_token FROM rdstation_tokens"
            ).fetchall()
        for account_id, access_token, refresh_token in rows:
            for column, stored in (("access_token", access_token), ("refresh_token", refresh_token)):
                try:
                    value = ring.decrypt(column, account_id, stored)
                except ValueDamaged:
                    continue
                if value not in self.planted.values.values():
                    self.planted.add(**{f"stored_{column}_{len(self.planted.values)}": value})

    # -- looking

    def expect_clean(self, where: str, text: str, shown: Iterable[str] = ()) -> None:
        self.leaks += [f"{where}: {found}" for found in self.planted.found_in(text, shown=shown)]

    def look_everywhere(self, *, without: Iterable[Path] = ()) -> list[str]:
        """Return all that was found, in answers so far and in everything that the processes left behind."""
        self.plant_stored_tokens()
        for log in set(self.logs()) - set(without):
            self.expect_clean(log.name, log.read_text(errors="replace"))
        for pid in {os.getpid(), *descendants(os.getpid())}:
            self.expect_clean(f"command line of {pid}", command_line(pid))
            self.expect_clean(f"name of {pid}", _name(pid))
        assert list(REPOSITORY.glob("core*")) == [], "a core file was left"
        return self.leaks

    def logs(self) -> list[Path]:
        """The files into which processes write, PostgreSQL's and the sandbox's own among them."""
        return [
            *sorted((self.folder / "processes").glob("*.log")),
            self.folder / "sandbox.log",
            self.postgres.log_file,
        ]

    def lines(self, name: str) -> list[str]:
        """What the processes whose log begins with `name` have said."""
        files = (self.folder / "processes").glob(f"{name}-*.log")
        return [line for file in files for line in file.read_text(errors="replace").splitlines()]

    def _look_at(self, what: str, response: requests.Response, shown: Iterable[str]) -> None:
        mine = [name for name in self.planted.values if name.startswith(("csrf_", "cookie_"))]
        page = response.headers.get("Content-Type", "").startswith("text/html")
        # An answer may name the account that its request has named.
        allowed = {*shown, "account", *(mine if page else [])}
        kept = {name: value for name, value in response.headers.items() if name != "Set-Cookie"}
        self.expect_clean(f"body of {what}", response.text, allowed)
        location = kept.pop("Location", "")
        if not location.startswith(self.sandbox.url):
            # RD Station's dialog gets the state, and a login page the path that was asked for.
            kept["Location"] = location.partition("?next=")[0]
        self.expect_clean(f"headers of {what}", json.dumps(kept), shown)
        self.request_ids.add(response.headers["X-Request-ID"])
        if response.headers.get("Content-Type", "").startswith("application/problem+json"):
            problem = response.json()
            self.codes.add(problem["code"])
            assert problem["request_id"] == response.headers["X-Request-ID"]

    def _keep_cookie(self, visitor: Visitor, response: requests.Response) -> None:
        """Take over a new cookie, and plant it with all that it carries."""
        given = response.headers.get("Set-Cookie")
        if given is None or visitor.bearer is not None or "session" not in given.partition("=")[0]:
            # The one for the language is no secret.
            return
        visitor.cookie = given.partition(";")[0]
        value = visitor.cookie.partition("=")[2]
        if value:
            self.planted.add(**{f"cookie_{self._calls}": value})
            content = decoded_cookie(value)
            for member, name in (("csrf_token", "csrf"), ("_user_id", "session")):
                if member in content:
                    self.planted.add(**{f"{name}_{content[member][:6]}": content[member]})
        for token in CSRF.findall(response.text):
            visitor.csrf_token = token
            self.planted.add(**{f"csrf_page_{self._calls}": token})


def decoded_cookie(value: str) -> dict[str, Any]:
    """Return what a cookie signed by itsdangerous carries, without asking whether it is genuine."""
    packed = value.startswith(".")
    payload = value.removeprefix(".").partition(".")[0]
    raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    content: dict[str, Any] = json.loads(zlib.decompress(raw) if packed else raw)
    return content


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def variables(planted: Planted, database_url: str, sandbox_url: str, *, production: bool) -> dict[str, str]:
    """The settings of all processes."""
    found = {
        "RDSTATION_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
        "RDSTATION_CLIENT_SECRET": f"{planted['client_secret']},{planted['second_client_secret']}",
        "RDSTATION_REDIRECT_URI": REDIRECT_URI,
        "RDSTATION_API_URL": sandbox_url,
        "DATABASE_URL": database_url,
        "SECRET_KEY": planted["secret_key"],
        "TOKEN_ENCRYPTION_KEYS": f"{planted['encryption_key']},{planted['old_encryption_key']}",
        "METRICS_TOKEN": planted["metrics_token"],
        # Nobody listens there.
        "NOTIFY_URLS": f"json://notifier:{planted['notify_password']}@127.0.0.1:9/{planted['notify_path']}"
        f"?%2BX-Token={planted['notify_header']}",
        "TRUSTED_PROXIES": "1",
        "PYTHONWARNINGS": "always",
        "PYTHONFAULTHANDLER": "1",
    }
    if production:
        return found | {"RDSERVICE_ENV": "production"}
    return found | {"PYTHONPATH": f"{UNFENCED}:{REPOSITORY}", "GUNICORN_CMD_ARGS": "--log-level debug"}


def open_stage(
    folder: Path, postgres: EmbeddedPostgres, sandbox: SandboxProcess, *, production: bool, **more: str
) -> Stage:
    """Start web and worker over `postgres` and `sandbox`, which run; everybody and everything has a planted secret."""
    planted = Planted()
    planted.add(**SECRETS)
    given = variables(planted, postgres.url, sandbox.url, production=production)
    settings = Settings.from_mapping(given)
    password = str(psycopg.conninfo.conninfo_to_dict(postgres.url)["password"])
    planted.add(database_password=password)
    visitors = {"nobody": Visitor(), "metrics": Visitor(bearer=planted["metrics_token"])}
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        migrate.migrate(conn)
        operators.create(
            conn, planted["operator_email"], passwords.hash_password(planted["operator_password"])
        )
        for name, scopes in (
            ("key", list(keys.SCOPES)),
            ("revoked", ["leads:read"]),
            ("narrow", ["tokens:status"]),
        ):
            made = keys.create(conn, name, scopes, created_by="test")
            planted.add(**{f"{name}_secret": made})
            visitors[name] = Visitor(bearer=made)
        keys.revoke(conn, visitors["revoked"].bearer.split("_")[1])  # type: ignore[union-attr]
    visitors["malformed"] = Visitor(bearer=planted["malformed_key"])
    visitors["unknown"] = Visitor(bearer=planted["unknown_key"])
    processes = Processes(given | more, folder / "processes")
    return Stage(
        folder=folder,
        production=production,
        postgres=postgres,
        sandbox=sandbox,
        planted=planted,
        settings=settings,
        processes=processes,
        web=processes.web(),
        visitors=visitors,
    )


def plant_lead(stage: Stage) -> None:
    """Let the sandbox have a lead of the planted person."""
    pair = stage.sandbox.pair()
    stage.planted.add(sandbox_access_token=pair["access_token"], sandbox_refresh_token=pair["refresh_token"])
    lead = {
        "name": stage.planted["lead_name"],
        "email": stage.planted["lead_email"],
        "mobile_phone": stage.planted["lead_phone"],
    }
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    response = requests.post(
        f"{stage.sandbox.url}/platform/contacts", json=lead, headers=headers, timeout=TIMEOUT_S
    )
    response.raise_for_status()
    stage.planted.add(lead_uuid=response.json()["uuid"])
    info = requests.get(f"{stage.sandbox.url}/marketing/account_info", headers=headers, timeout=TIMEOUT_S)
    stage.planted.add(account_name=info.json()["name"])
