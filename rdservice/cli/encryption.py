"""`flask encryption`: which keys the stored values need, and putting all of them under the first key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask.cli import AppGroup

from rdservice.cli import progress
from rdservice.cli.connection import author, errors_in_one_line, transaction
from rdservice.cli.json_output import as_json_option, print_json
from rdservice.data_protection import key_inventory, key_rotation
from rdservice.data_protection.key_inventory import TABLES, Findings, Names
from rdservice.database.progress import OnRows
from rdservice.web.http.context import services

encryption_group = AppGroup("encryption", help="See which encryption keys are needed, and re-encrypt.")

EXIT_KEYS_NEEDED = 1
EXIT_INTERRUPTED = 130


@encryption_group.command("status")
@as_json_option
def status(as_json: bool) -> None:
    """Say which keys the stored values need.

    Decrypts every one. Exit status 0: the first key is enough, all others may be dropped. 1: they may not, or something
    cannot be read.

    \b
    Example:
      flask encryption status --json
    """
    with _progress("Looking through") as on_rows, errors_in_one_line():
        findings = key_inventory.look_through(services().pool, services().keys, on_rows=on_rows)
    _report(findings, as_json, {})


@encryption_group.command("rotate")
@as_json_option
def rotate(as_json: bool) -> None:
    """Re-encrypt every stored value under the first key.

    That is the first of TOKEN_ENCRYPTION_KEYS. Safe while web and worker run, to interrupt, to repeat and to run twice
    at once. Exit status 0: the first key is enough, all others may be dropped. 1: they may not; what is left is listed.
    130: interrupted.

    \b
    Example:
      flask encryption rotate
    """
    done = key_rotation.Progress()
    pool, keys = services().pool, services().keys
    try:
        with _progress("Re-encrypting") as on_rows, errors_in_one_line():
            key_rotation.run(pool, keys, done, by=author(), on_rows=on_rows)
            findings = key_inventory.look_through(pool, keys, trusted=keys.key_ids[0])
    except KeyboardInterrupt:
        click.echo(
            f"Interrupted: {done.reencrypted_rows} rows were re-encrypted. Run it again for the others.",
            err=True,
        )
        raise SystemExit(EXIT_INTERRUPTED) from None
    if not as_json:
        click.echo(f"Re-encrypted {done.reencrypted_rows} rows.")
    _report(findings, as_json, {"reencrypted_rows": done.reencrypted_rows})


@contextmanager
def _progress(label: str) -> Iterator[OnRows]:
    """Yield what to call with numbers of rows of all tables."""
    with transaction() as conn:
        total = sum(table.count(conn) for table in TABLES)
    with progress.shown(label, total) as on_rows:
        yield on_rows


def _report(findings: Findings, as_json: bool, more: dict[str, Any]) -> None:
    """Print what was found and leave with the status that it means."""
    if as_json:
        print_json({**_as_json(findings), **more})
    else:
        for line in _lines(findings):
            click.echo(line)
    if not findings.first_key_is_enough:
        raise SystemExit(EXIT_KEYS_NEEDED)


def _as_json(findings: Findings) -> dict[str, Any]:
    return {
        "first_key_is_enough": findings.first_key_is_enough,
        "keys": [
            {
                "key_id": key_id,
                "in_settings": key_id in findings.key_ids,
                "encrypts": key_id == findings.key_ids[0],
                "values": findings.under(key_id),
            }
            for key_id in findings.seen_key_ids
        ],
        "missing": [
            {"key_id": key_id, "accounts": names.some, "total": names.total}
            for key_id, names in findings.missing.items()
        ],
        "damaged": {"values": findings.damaged.some, "total": findings.damaged.total},
        "not_encrypted": {"values": findings.not_encrypted.some, "total": findings.not_encrypted.total},
    }


def _lines(findings: Findings) -> Iterator[str]:
    for key_id in findings.seen_key_ids:
        under = ", ".join(f"{number} of {table}" for table, number in findings.under(key_id).items())
        yield f"{key_id}  {_role(findings, key_id)}  {under or 'no value'}"
    for key_id, names in findings.missing.items():
        yield (
            f"TOKEN_ENCRYPTION_KEYS lacks the key {key_id}. It is needed by {_named(names)}. Put it back at the end of"
            " the list; nothing is lost."
        )
    if findings.damaged.total:
        yield (
            f"Damaged although the key is there: {_named(findings.damaged)}. Restore from a backup, or connect these"
            " accounts again."
        )
    if findings.not_encrypted.total:
        yield f"Not encrypted: {_named(findings.not_encrypted)}. Run 'flask release'."
    if findings.first_key_is_enough:
        yield "Every stored value can be read with the first key. All other keys may be dropped."
    else:
        yield "Do not drop any key yet."


def _role(findings: Findings, key_id: str) -> str:
    if key_id == findings.key_ids[0]:
        return "encrypts"
    if key_id not in findings.key_ids:
        return "is MISSING"
    return "is needed" if findings.under(key_id) else "may be dropped"


def _named(names: Names) -> str:
    more = names.total - len(names.some)
    return ", ".join(names.some) + (f" and {more} more" if more else "")
