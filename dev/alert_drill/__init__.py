"""A drill: each alert fires, is delivered and resolves, against real processes that are made to fail.

`scene` is the service that fails, `scenarios` say how, `watch` is what sees it: Prometheus, Alertmanager and a webhook.
"""
