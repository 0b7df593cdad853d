"""Pages whose changing part is asked for again by `static/live.js`, so that nobody needs to reload.

A page includes that part, and the same address with `fragment=1` answers with it alone, under an ETag: nothing is sent
while nothing has changed. Without JavaScript a page is as right as when it was opened.
"""

import hashlib
from typing import Any

from flask import make_response, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf

from rdservice.web.http import guard

FRAGMENT = "fragment"
"""The query parameter. Such a request is the page's and not the operator's: it does not keep a session alive."""


def respond(page: str, part: str, **values: Any) -> ResponseReturnValue:
    """Return the template `page`, which includes `part`, or `part` alone where the script asks for it."""
    if FRAGMENT not in request.args:
        return render_template(page, operator=guard.actor().label, **values)
    fragment = render_template(part, **values)
    response = make_response(fragment)
    # Every request has another CSRF token, and each of them works.
    lasting = fragment.replace(generate_csrf(), "")
    response.set_etag(hashlib.sha256(lasting.encode()).hexdigest()[:32])
    return response.make_conditional(request)
