"""The pages that a person sees: the authorization page and its errors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from urllib.parse import urlsplit

from sandbox.messages import ApiResponse

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem;color:#1d2b36}"
    "button{font:inherit;padding:.6rem 1.4rem;border:0;border-radius:.4rem;background:#0a6b52;color:#fff}"
    "select{font:inherit;padding:.5rem;max-width:100%}form{margin:1.5rem 0}code{overflow-wrap:anywhere}"
)
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()


def consent(
    *, accounts: Mapping[str, str], chosen: str, form: Mapping[str, str], refuse_url: str, redirect_uri: str
) -> ApiResponse:
    """Return the authorization page: a form with the button Autorizar, and a link to refuse.

    `accounts`: the names of the accounts among which the person may choose; `chosen` is preset.
    """
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in form.items()
    )
    options = "".join(
        f'<option value="{escape(account)}"{" selected" if account == chosen else ""}>{escape(name)}</option>'
        for account, name in accounts.items()
    )
    return _page(
        200,
        "Autorizar aplicativo",
        "<p>Um aplicativo pede acesso aos contatos de uma conta.</p>"
        f'<form method="post" action="/auth/dialog">{fields}'
        f'<p><label for="account">Conta</label> <select id="account" name="account">{options}</select></p>'
        '<button type="submit">Autorizar</button></form>'
        f'<p><a href="{escape(refuse_url)}">Recusar</a></p>'
        "<p>Esta é uma imitação local do RD Station: nenhum dado é real.</p>",
        form_target=_source(redirect_uri),
    )


def refusal(status: int, *sentences: str) -> ApiResponse:
    """Return a page that says why authorization is impossible. The sentences are plain text."""
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return _page(status, "Não foi possível autorizar", paragraphs)


def _source(url: str) -> str:
    """Return the CSP source of a URL. Browsers also apply `form-action` to the redirect after the form."""
    parts = urlsplit(url)
    # CSP's grammar does not allow an IPv6 address.
    return f"{parts.scheme}:" if "[" in parts.netloc else f"{parts.scheme}://{parts.netloc}"


def _page(status: int, title: str, content: str, form_target: str = "") -> ApiResponse:
    html = (
        f'<!doctype html><html lang="pt-BR"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{content}</body></html>"
    )
    policy = (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'; "
        f"form-action 'self' {form_target}".rstrip()
    )
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return ApiResponse(status=status, headers=headers, body=html.encode())
