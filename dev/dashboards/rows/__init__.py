"""The dashboard's rows of panels, from left to right.

Where a panel shows what an alert judges, it names the alert: the colours and lines of its thresholds come from the
alert's rule, and one of its queries is what the rule compares. Several jobs are several services, and stay apart.
"""

from dev.dashboards.rows.rdstation import LEADS, RD_STATION
from dev.dashboards.rows.service import INTERNALS, REQUESTS
from dev.dashboards.rows.tokens import AUTHENTICATION, STATE

ROWS = (STATE, RD_STATION, AUTHENTICATION, LEADS, REQUESTS, INTERNALS)
