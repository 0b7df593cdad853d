"""Sends requests to RD Station for an account."""

import math
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from rdservice import errors
from rdservice.account_calls.failures import RETRY_S, call_once
from rdservice.rdstation.client import ApiResponse
from rdservice.rdstation.rate_budget import PATIENCE_S, Limit, RateBudget
from rdservice.rdstation.streaming import StreamedResponse
from rdservice.text.catalogue import message
from rdservice.tokens.access_tokens import AccessTokens

A = TypeVar("A", ApiResponse, StreamedResponse)


def _go_on() -> None:
    """Let a request be repeated."""


class AccountCalls:
    """Calls RD Station for accounts. Safe to use from many threads."""

    def __init__(self, access_tokens: AccessTokens, rate_budget: RateBudget) -> None:
        self._access_tokens = access_tokens
        self._rate_budget = rate_budget

    def send(
        self,
        account_id: str,
        call: Callable[[str], A],
        *,
        limit: Limit = "account",
        background: bool = False,
        timeout_s: float = PATIENCE_S,
        pause: Callable[[float], None] = time.sleep,
        deadline: float = math.inf,
        refresh_on_401: bool = True,
        before_repetition: Callable[[], None] = _go_on,
        passed_through: bool = False,
    ) -> A:
        """Call RD Station with a live access token; `call` takes the token, sends the request, returns the response.

        A 401 is worth one refresh of that token, shared by everyone who meets it, and one repetition, which takes a
        place in the rate budget of its own; then it is the response. Where a 401 says nothing about the token,
        `refresh_on_401` is False. `before_repetition` is called when the token has been refreshed, and may raise to
        prevent the repetition.

        `limit`, `background`, `patience_s` (seconds) and `pause` are those of `RateBudget.spend`, `passed_through` is
        that of `call_once`. `latest_start` is the monotonic time after which nothing is sent any more.

        Raises what `AccessTokens.usable` raises, TooManyRequests while the budget is spent, RdStationTimeout or
        RdStationUnavailable without a response, and what `call`, `pause` and `before_repetition` raise.
        """

        def spend(access_token: str) -> A:
            left_s = deadline - time.monotonic()
            if left_s < 0:
                raise errors.RdStationTimeout(
                    message("Getting a valid access token took too long. Try again."), retry_after_s=RETRY_S
                )
            return self._rate_budget.spend(
                account_id,
                lambda: call_once(lambda: call(access_token), passed_through=passed_through),
                limit=limit,
                background=background,
                timeout_s=min(timeout_s, left_s),
                pause=pause,
            )

        token = self._access_tokens.usable(account_id)
        response = spend(token.access_token)
        if response.status != HTTPStatus.UNAUTHORIZED or not refresh_on_401:
            return response
        renewed = self._access_tokens.replace_rejected(token)
        if renewed is None:
            return response
        before_repetition()
        return spend(renewed.access_token)

    def send_counted(self, account_id: str, call: Callable[[], A]) -> A:
        """Make a call with a token that is not the stored one. It counts in the rate budget and never waits for it.

        Raises RdStationTimeout or RdStationUnavailable without a response.
        """
        self._rate_budget.count(account_id)
        return call_once(call)
