"""What the service is compared with: a Flask application with one route that answers ready bytes as JSON."""

import os
from pathlib import Path

from flask import Flask, Response

app = Flask(__name__)
body = Path(os.environ["BENCH_BODY_FILE"]).read_bytes()


@app.get("/")
def show() -> Response:
    """Return the bytes that the measured route of the service returns."""
    return Response(body, content_type="application/json")
