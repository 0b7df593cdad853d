"""The page that runs the diagnosis and offers its report as a download."""

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
"""Longest duration of `diagnose_running`, in seconds. Heroku's router waits 30 seconds."""

# A diagnosis opens connections and calls RD Station; impatient clicks must not multiply that.
_one_at_a_time = threading.Lock()


@bp.get("/diagnosis")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show what the file contains and what it leaves out, with the button that creates it."""
    return render_template("diagnosis.html", operator=guard.actor().label, file_name=NAME)


@bp.post("/diagnosis")
@guard.operator_only
def download() -> ResponseReturnValue:
    """Run the diagnosis and return the report as a file. Responds with 429 while this process runs another."""
    if not _one_at_a_time.acquire(blocking=False):
        raise TooManyRequests(
            f"A diagnosis is already running. It takes at most {LONGEST_S} seconds; try again then.",
            retry_after_s=LONGEST_S,
        )
    try:
        report = diagnose_running(services(), by=guard.author())
    finally:
        _one_at_a_time.release()
    response = Response(report.to_bytes(), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{NAME}"'
    return response
