"""The baseline for comparisons: a Flask application with one route that returns fixed bytes as JSON."""

import os
from pathlib import Path

from flask import Flask, Response

app = Flask(__name__)
body = Path(os.environ["BENCH_BODY_FILE"]).read_bytes()


@app.get("/")
def show() -> Response:
    """Return the bytes that the measured route of the service returns."""
    return Response(body, content_type="application/json")
