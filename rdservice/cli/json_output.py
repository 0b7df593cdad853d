"""Output for programs. docs/en/reference/commands.md describes it: members may be added, none changes its meaning."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from rdservice.cli.translated_help import option

as_json_option = option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: Any) -> None:
    """Print `value`, indented, with letters as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def time_or_null(moment: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC, None for none."""
    return None if moment is None else moment.astimezone(UTC).isoformat()
