"""Sends requests to RD Station for an account."""

import math
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from rdservice import errors
from rdservice.account_calls.failures import RETRY_S, call_once
from rdservice.rdstation.client import ApiResponse
from rdservice.rdstation.rate_budget import TIMEOUT_S, Limit, RateBudget
from rdservice.rdstation.streaming import StreamedResponse
from rdservice.text.catalogue import message
from rdservice.tokens.access_tokens import AccessTokens

A = TypeVar("A", ApiResponse, StreamedResponse)


def _allow() -> None:
    """Allow the retry."""


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
        timeout_s: float = TIMEOUT_S,
        pause: Callable[[float], None] = time.sleep,
        deadline: float = math.inf,
        refresh_on_401: bool = True,
        before_retry: Callable[[], None] = _allow,
        passed_through: bool = False,
    ) -> A:
        """Call RD Station with a valid access token and return its response, whatever its status.

        `call` takes the access token, sends the request and returns the response. After a 401, the token is refreshed
        once (all callers with the same rejected token share that refresh), and the request is sent once more, with a
        slot in the rate budget of its own. A second 401 is the response. Set `refresh_on_401` to False if a 401 says
        nothing about the token. `before_retry` runs after the refresh and may raise to prevent the retry.

        `limit`, `background`, `timeout_s` (seconds) and `pause` are those of `RateBudget.spend`, `passed_through` is
        that of `call_once`. `deadline`: nothing is sent after that monotonic time.

        Raises what `AccessTokens.usable` raises, TooManyRequests while the budget is used up, RdStationTimeout or
        RdStationUnavailable without a response, and what `call`, `pause` and `before_retry` raise.
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
        replacement = self._access_tokens.replace_rejected(token)
        if replacement is None:
            return response
        before_retry()
        return spend(replacement.access_token)
