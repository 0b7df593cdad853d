"""Pages that update themselves: `static/live.js` requests their changing part again and again.

The page includes that part. The same URL with `fragment=1` returns only the part, with an ETag, so that nothing is sent
while nothing has changed. Without JavaScript, a page shows the state at the time of its request.
"""

import hashlib
from typing import Any

from flask import make_response, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf

from rdservice.web.http import guard

FRAGMENT = "fragment"
"""The query parameter of automatic requests. They do not count as use of the session."""


def respond(page: str, part: str, **values: Any) -> ResponseReturnValue:
    """Return the template `page`, which includes `part`; or only `part` if the script requests it."""
    if FRAGMENT not in request.args:
        return render_template(page, operator=guard.actor().label, **values)
    fragment = render_template(part, **values)
    response = make_response(fragment)
    # The CSRF token differs in each response, and all of them are valid.
    lasting = fragment.replace(generate_csrf(), "")
    response.set_etag(hashlib.sha256(lasting.encode()).hexdigest()[:32])
    return response.make_conditional(request)
