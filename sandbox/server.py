"""Serves the sandbox over HTTP: acts out latency and faults of the connection, and sends webhooks."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from aiohttp.http_exceptions import HttpProcessingError

from sandbox.core import Sandbox
from sandbox.errors import ApiError
from sandbox.messages import ApiResponse, Delivery, Request, json_response

LONGEST_SILENCE_S = 120
SLOW_DRIP_S = 180
# Below the read timeouts of common clients: the response must drip, not stall.
LONGEST_DRIP_PAUSE_S = 5.0
TOO_LARGE = ApiError(413, "PAYLOAD_TOO_LARGE")
WEBHOOK_TIMEOUT = ClientTimeout(total=10)


class Server:
    """Serves one sandbox. With `verbose` it writes method, operation and status of each call to standard error."""

    def __init__(self, sandbox: Sandbox, *, verbose: bool = False) -> None:
        self._sandbox = sandbox
        self._verbose = verbose
        self._webhooks: set[asyncio.Task[None]] = set()
        self._session: ClientSession | None = None

    async def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT. Once listening, print the address in one line to standard output."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # The call ends when its client disconnects, whatever latency is left.
        server = web.Server(
            self._respond, handler_cancellation=True, access_log=None, logger=_own_faults_logger()
        )
        # Calls under way are cut off; for aiohttp 0 would mean no limit.
        runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        address = runner.addresses[0]
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        print(f"sandbox ready http://{shown}:{address[1]}", flush=True)
        await stop.wait()
        for task in self._webhooks:
            task.cancel()
        if self._session is not None:
            await self._session.close()
        await runner.cleanup()

    async def _respond(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await raw.read()
        except web.HTTPRequestEntityTooLarge:
            api_response = TOO_LARGE.response("object")
            return web.Response(
                status=api_response.status, headers=self._headers(api_response), body=api_response.body
            )
        request = Request(
            method=raw.method,
            target=_readable(raw.raw_path),
            headers={name.lower(): _readable(value) for name, value in raw.headers.items()},
            body=body,
            peer=raw.remote or "",
        )
        api_response = self._sandbox.begin(request)
        try:
            if api_response.latency_s:
                await asyncio.sleep(api_response.latency_s)
            if api_response.report_deliveries:
                api_response = await self._deliver_and_report(api_response)
            else:
                self._deliver_in_background(api_response.deliveries)
            if api_response.enact == "slow_drip":
                return await self._drip(raw, api_response)
            if api_response.enact == "timeout":
                await asyncio.sleep(LONGEST_SILENCE_S)
            if api_response.enact is not None:
                return _cut_off(raw)
            return web.Response(
                status=api_response.status, headers=self._headers(api_response), body=api_response.body
            )
        finally:
            self._sandbox.end(api_response)
            if self._verbose:
                # Paths of the API contain e-mail addresses.
                asked = api_response.operation or raw.raw_path.partition("?")[0]
                print(
                    f"{raw.method} {asked} {api_response.enact or api_response.status}",
                    file=sys.stderr,
                    flush=True,
                )

    def _headers(self, api_response: ApiResponse) -> dict[str, str]:
        return {
            **api_response.headers,
            "Date": formatdate(self._sandbox.now(), usegmt=True),
            "Server": "sandbox",
        }

    async def _drip(self, raw: web.BaseRequest, api_response: ApiResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=api_response.status, headers=self._headers(api_response))
        response.content_length = len(api_response.body)
        await response.prepare(raw)
        pause = min(SLOW_DRIP_S / max(len(api_response.body), 1), LONGEST_DRIP_PAUSE_S)
        for position in range(len(api_response.body)):
            await response.write(api_response.body[position : position + 1])
            await asyncio.sleep(pause)
        await response.write_eof()
        return response

    def _deliver_in_background(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            task = asyncio.create_task(self._deliver_quietly(delivery))
            self._webhooks.add(task)
            task.add_done_callback(self._webhooks.discard)

    async def _deliver_quietly(self, delivery: Delivery) -> None:
        await self._deliver(delivery)

    async def _deliver_and_report(self, api_response: ApiResponse) -> ApiResponse:
        reports = [await self._deliver(delivery) for delivery in api_response.deliveries]
        return json_response({"deliveries": reports})

    async def _deliver(self, delivery: Delivery) -> dict[str, Any]:
        """Send one webhook; return its `status`, or None and the kind of `error`."""
        if self._session is None:
            self._session = ClientSession(timeout=WEBHOOK_TIMEOUT)
        headers = {"Content-Type": "application/json"}
        body = json.dumps(delivery.body, ensure_ascii=False).encode()
        try:
            async with self._session.post(
                delivery.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return {"url": delivery.url, "status": response.status}
        except (ClientError, TimeoutError) as error:
            return {"url": delivery.url, "status": None, "error": type(error).__name__}


def _own_faults_logger() -> logging.Logger:
    """Logs errors of the sandbox itself. aiohttp would also quote invalid requests, including their tokens."""
    logger = logging.getLogger("sandbox.server")
    logger.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
    )
    return logger


def _readable(text: str) -> str:
    """Return text of the request without the surrogates that aiohttp uses for invalid UTF-8."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def _cut_off(raw: web.BaseRequest) -> web.StreamResponse:
    """Reset the connection."""
    if raw.transport is not None:
        raw.transport.abort()
    # Never sent: the connection is closed.
    return web.Response()
