"""`flask encryption`: which keys the stored values need, and putting all of them under the first key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from rdservice.cli import progress
from rdservice.cli.connection import author, errors_in_one_line, transaction
from rdservice.cli.json_output import as_json_option, print_json
from rdservice.cli.translated_help import Group
from rdservice.data_protection import key_inventory, key_rotation
from rdservice.data_protection.key_inventory import TABLES, Findings, Names
from rdservice.database.progress import OnRows
from rdservice.text.terminal import tell, tell_plural
from rdservice.web.http.context import services

encryption_group = Group("encryption", help="See which encryption keys are needed, and re-encrypt.")

EXIT_KEYS_NEEDED = 1
EXIT_INTERRUPTED = 130


@encryption_group.command("status")
@as_json_option
def status(as_json: bool) -> None:
    """Say which keys the stored values need.

    Decrypts each of them. Exit status 0: the first key is enough, all others may be dropped. 1: they may not, or
    something cannot be read.

    \b
    Example:
      flask encryption status --json
    """
    with _progress(tell("Looking through")) as on_rows, errors_in_one_line():
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
        with _progress(tell("Re-encrypting")) as on_rows, errors_in_one_line():
            key_rotation.run(pool, keys, done, by=author(), on_rows=on_rows)
            findings = key_inventory.look_through(pool, keys, trusted=keys.key_ids[0])
    except KeyboardInterrupt:
        click.echo(
            tell_plural(
                "Interrupted: %(count)s row was re-encrypted. Run it again for the others.",
                "Interrupted: %(count)s rows were re-encrypted. Run it again for the others.",
                done.reencrypted_rows,
            ),
            err=True,
        )
        raise SystemExit(EXIT_INTERRUPTED) from None
    if not as_json:
        click.echo(
            tell_plural("Re-encrypted %(count)s row.", "Re-encrypted %(count)s rows.", done.reencrypted_rows)
        )
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
        under = ", ".join(
            tell("%(number)s of %(table)s", number=number, table=table)
            for table, number in findings.under(key_id).items()
        )
        values = under or tell("no value")
        yield f"{key_id}  {_role(findings, key_id)}  {values}"
    for key_id, names in findings.missing.items():
        yield tell(
            "TOKEN_ENCRYPTION_KEYS lacks the key %(key)s. It is needed by %(accounts)s. Put it back at the end of the"
            " list; nothing is lost.",
            key=key_id,
            accounts=_named(names),
        )
    if findings.damaged.total:
        yield tell(
            "Damaged although the key is there: %(values)s. Restore from a backup, or connect these accounts again.",
            values=_named(findings.damaged),
        )
    if findings.not_encrypted.total:
        yield tell("Not encrypted: %(values)s. Run 'flask release'.", values=_named(findings.not_encrypted))
    if findings.first_key_is_enough:
        yield tell("Every stored value can be read with the first key. All other keys may be dropped.")
    else:
        yield tell("Do not drop any key yet.")


def _role(findings: Findings, key_id: str) -> str:
    if key_id == findings.key_ids[0]:
        return tell("encrypts")
    if key_id not in findings.key_ids:
        return tell("is MISSING")
    return tell("is needed") if findings.under(key_id) else tell("may be dropped")


def _named(names: Names) -> str:
    named = ", ".join(names.some)
    more = names.total - len(names.some)
    return tell("%(names)s and %(count)s more", names=named, count=more) if more else named
