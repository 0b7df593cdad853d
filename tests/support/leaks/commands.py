"""How each command is run. A new command needs a line here, with what its output is meant to show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """`arguments` and `text`, its standard input, have the names of planted values in braces."""

    arguments: tuple[str, ...]
    shows: tuple[str, ...] = ()
    text: str | None = None
    status: int = 0


AUDITED = ("operator_email", "second_operator", "account", "account_name")

COMMANDS: dict[str, tuple[Run, ...]] = {
    "release": (Run(()),),
    "operators create": (
        Run(("{second_operator}", "--password-stdin"), ("second_operator",), "{new_password}\n"),
        Run(("{second_operator}", "--password-stdin"), ("second_operator",), "{new_password}\n", 1),
        Run(("{lead_phone}", "--password-stdin"), (), "{new_password}\n", 1),
    ),
    "operators reset-password": (
        Run(("{second_operator}", "--password-stdin"), ("second_operator",), "{wrong_password}\n"),
    ),
    "operators list": (
        Run((), ("operator_email", "second_operator")),
        Run(("--json",), ("operator_email", "second_operator")),
    ),
    "operators remove": (Run(("{second_operator}", "--yes"), ("second_operator",)),),
    "keys create": (Run(("a program", "--scope", "leads:read")),),
    "keys list": (Run(()), Run(("--json",), ("operator_email",))),
    "keys revoke": (Run(("{narrow_secret}", "--yes")), Run(("{unknown_key}", "--yes"), (), None, 1)),
    "accounts list": (Run((), ("account", "account_name")), Run(("--json",), ("account", "account_name"))),
    "accounts show": (
        Run(("{account}", "--json"), ("account", "account_name")),
        Run(("{account}",), ("account", "account_name")),
        Run(("{lead_email}",), ("lead_email",), None, 1),
    ),
    "accounts refresh": (Run(("{account}",), ("account",)), Run(("{lead_email}",), ("lead_email",), None, 1)),
    "accounts rename": (
        Run(("{account}", "renamed"), ("account",)),
        Run(("renamed", "{account}"), ("account",)),
        Run(("{lead_email}", "renamed"), ("lead_email",), None, 1),
    ),
    "webhooks subscribe": (Run(("--account", "{account}"), ("account",)),),
    "webhooks list": (Run((), ("account",)), Run(("--json",), ("account",))),
    "webhooks unsubscribe": (Run(("--account", "{account}"), ("account",)),),
    "leads export": (
        Run(("-", "--account", "{account}"), ("lead_email", "lead_name", "lead_uuid")),
        Run(("-", "--account", "{account}", "--segmentation", "{lead_email}"), (), None, 1),
    ),
    "accounts disconnect": (Run(("{account}", "--yes"), ("account",)), Run(("{lead_email}",), (), None, 2)),
    "audit list": (Run((), AUDITED), Run(("--json",), AUDITED)),
    "encryption status": (Run((), ("account",)), Run(("--json",), ("account",))),
    "encryption rotate": (Run((), ("account",)),),
    "notifications test": (Run((), (), None, 1), Run(("--json",), (), None, 1)),
    "notifications list": (Run(()), Run(("--json",))),
    "privacy erase": (
        Run(("-", "--yes"), (), "{lead_email}\n"),
        Run(("-", "--yes"), (), "{lead_uuid}\n"),
        Run(("-",), (), "{lead_phone}\n", 2),
    ),
    "privacy reapply": (Run(("-", "--yes"), (), "[]\n"), Run(("-", "--yes"), (), "{lead_email}\n", 1)),
    "settings check": (Run(()),),
    "routes": (Run(()),),
    "shell": (Run((), (), "import flask; flask.current_app.extensions\n"),),
}

NOT_RUN = {"run": "it serves until it is stopped: test_processes.py starts it apart"}
