"""`python -m sandbox [--host 127.0.0.1] [--port 0] --state FILE [--seed N] [--verbose]`

SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET (one or several, comma-separated, all of them accepted) and
SANDBOX_REDIRECT_URI define the registered app. Exit status: 78 if one of them is missing, 69 if the state file or the
port is in use.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.core import Client, Sandbox
from sandbox.server import Server
from sandbox.store import StateInUse

EX_UNAVAILABLE = 69
EX_CONFIG = 78


def main() -> int:
    arguments = _arguments()
    missing = [
        name for name in ("ID", "SECRET") if not os.environ.get(f"SANDBOX_CLIENT_{name}", "").strip(", ")
    ]
    names = [f"SANDBOX_CLIENT_{name}" for name in missing]
    if not os.environ.get("SANDBOX_REDIRECT_URI"):
        names.append("SANDBOX_REDIRECT_URI")
    if names:
        print(
            f"sandbox: set {', '.join(names)} in the environment: the app as it is registered",
            file=sys.stderr,
        )
        return EX_CONFIG
    try:
        sandbox = Sandbox(_client(os.environ), state=arguments.state, seed=arguments.seed)
    except StateInUse as error:
        print(
            f"sandbox: another sandbox is using {error}; stop it or choose another --state", file=sys.stderr
        )
        return EX_UNAVAILABLE
    try:
        asyncio.run(Server(sandbox, verbose=arguments.verbose).run(arguments.host, arguments.port))
    except OSError as error:
        print(f"sandbox: cannot listen on {arguments.host} port {arguments.port}: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    finally:
        sandbox.close()
    return 0


def _client(environment: Mapping[str, str]) -> Client:
    secrets = environment["SANDBOX_CLIENT_SECRET"].split(",")
    return Client(
        id=environment["SANDBOX_CLIENT_ID"],
        secrets=tuple(secret.strip() for secret in secrets if secret.strip()),
        redirect_uri=environment["SANDBOX_REDIRECT_URI"],
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description="An imitation of RD Station Marketing."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one"
    )
    parser.add_argument("--state", type=Path, required=True, help="file that keeps the state over restarts")
    parser.add_argument(
        "--seed", type=int, default=1, help="what accounts and leads are made from (default: 1)"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="write method, operation and status to standard error"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
