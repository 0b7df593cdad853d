"""The page that makes the diagnosis and gives it as a file, without a terminal on the server."""

import threading

from flask import Blueprint, Response, render_template
from flask.typing import ResponseReturnValue

from rdservice.diagnosis.report.build import diagnose_running
from rdservice.diagnosis.report.report_file import NAME
from rdservice.errors import TooManyRequests
from rdservice.web.http import guard
from rdservice.web.http.context import services

bp = Blueprint("diagnosis", __name__)

LONGEST_S = 26
"""What `diagnose_running` promises; Heroku's router waits 30 seconds."""

# It opens connections and calls RD Station: impatient clicks must not multiply that.
_one_at_a_time = threading.Lock()


@bp.get("/diagnosis")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Say what the file holds and what it does not hold, with the button that makes it."""
    return render_template("diagnosis.html", operator=guard.actor().label, file_name=NAME)


@bp.post("/diagnosis")
@guard.operator_only
def download() -> ResponseReturnValue:
    """Make the diagnosis now and answer it as a file. 429 while this process is making one already."""
    if not _one_at_a_time.acquire(blocking=False):
        raise TooManyRequests(
            f"A diagnosis is being made. It ends within {LONGEST_S} seconds; then try again.",
            retry_after_s=LONGEST_S,
        )
    try:
        report = diagnose_running(services(), by=guard.author())
    finally:
        _one_at_a_time.release()
    response = Response(report.to_bytes(), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{NAME}"'
    return response
