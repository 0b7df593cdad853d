"""A test receiver for the service's notifications."""

from http import HTTPStatus

from dev.monitoring.webhook_server import WebhookServer


class Inbox(WebhookServer):
    """A context manager that accepts notifications only while `accepts` is true."""

    def __init__(self) -> None:
        self.accepts = True
        super().__init__(lambda _body: HTTPStatus.OK if self.accepts else HTTPStatus.SERVICE_UNAVAILABLE)

    @property
    def notify_url(self) -> str:
        """The receiver's URL for NOTIFY_URLS."""
        return f"json://{self.address}/"
