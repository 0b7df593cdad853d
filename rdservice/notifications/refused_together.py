"""Whether RD Station refused so many accounts together that the fault is probably its own."""

from typing import Any

import psycopg

ACCOUNTS = 5
WITHIN_S = 600
"""So many different accounts that were refused within so many seconds, while none was renewed, are no coincidence."""

# Only refusals since the last renewal count: it shows that RD Station accepts refresh tokens.
COUNT = """
WITH renewed AS (
    SELECT started_at FROM rdstation_refresh_attempts WHERE outcome = 'stored' ORDER BY started_at DESC LIMIT 1),
refused AS (
    SELECT refused_since, refused_since - lag(refused_since, %(others)s) OVER (ORDER BY refused_since) AS took
      FROM rdstation_tokens
     WHERE status = 'reauthorization_required' AND last_error IN ('revoked', 'unauthorized')
       AND refused_since > COALESCE((SELECT started_at FROM renewed), '-infinity'))
SELECT CASE WHEN bool_or(took <= make_interval(secs => %(within_s)s)) THEN count(*) ELSE 0 END FROM refused
"""


def count(conn: psycopg.Connection[Any]) -> int:
    """Return how many accounts RD Station has refused since the last renewal, or 0 if that may be a coincidence."""
    row = conn.execute(COUNT, {"others": ACCOUNTS - 1, "within_s": WITHIN_S}).fetchone()
    return 0 if row is None else int(row[0])
