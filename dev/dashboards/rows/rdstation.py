"""Rows about calls to RD Station, and about leads."""

from dev.dashboards.panel import COUNT, RATE, RATIO, SECONDS, Panel, Query, Row


def _quantile(quantile: float) -> str:
    bucket = 'rdstation_api_request_duration_seconds_bucket{job=~"$job"}[$__rate_interval]'
    return f"histogram_quantile({quantile}, sum by (job, operation, le) (rate({bucket})))"


RD_STATION = Row(
    title="Calls to RD Station",
    panels=(
        Panel(
            title="Calls by status class",
            description="Calls a second by class of the HTTP status; none: no response.",
            unit=RATE,
            width=8,
            queries=(
                Query(
                    expression="sum by (job, status_class) "
                    '(rate(rdstation_api_requests_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{status_class}}",
                ),
            ),
        ),
        Panel(
            title="Server errors",
            description="Part of the calls that ended with a 5xx status or without a response.",
            unit=RATIO,
            width=8,
            queries=(
                Query(
                    expression="sum by (job) (rate(rdstation_api_requests_total"
                    '{status_class=~"5xx|none",job=~"$job"}[$__rate_interval]))'
                    " / sum by (job) "
                    '(rate(rdstation_api_requests_total{job=~"$job"}[$__rate_interval]))'
                ),
            ),
            alerts=("RDStationServerErrorsHigh",),
        ),
        Panel(
            title="Rejected calls",
            description="Part of the calls that were rejected (4xx but 401 and 429). Lookups of single leads are left "
            "out: 404 is an ordinary response to them. The alert wants five in ten minutes as well.",
            unit=RATIO,
            width=8,
            queries=(
                Query(
                    expression="sum by (job) (rate(rdstation_api_failures_total"
                    '{reason="client_error",operation!="contact_get",job=~"$job"}[$__rate_interval]))'
                    " / sum by (job) (rate(rdstation_api_requests_total"
                    '{operation!="contact_get",job=~"$job"}[$__rate_interval]))'
                ),
            ),
            alerts=("RDStationClientErrorsHigh",),
        ),
        Panel(
            title="Duration of calls, median",
            description="Half of the calls are faster, by operation. Where there was no call there is no line.",
            unit=SECONDS,
            width=8,
            queries=(Query(expression=_quantile(0.5), legend="{{job}} {{operation}}"),),
        ),
        Panel(
            title="Duration of calls, 95th percentile",
            description="19 of 20 calls are faster, by operation. Callers wait for a token for 10 s.",
            unit=SECONDS,
            width=8,
            queries=(Query(expression=_quantile(0.95), legend="{{job}} {{operation}}"),),
            alerts=("RDStationLatencyHigh",),
        ),
        Panel(
            title="Duration of calls, 99th percentile",
            description="99 of 100 calls are faster, by operation. Calls are given up after 15 s, token exchanges "
            "after 20 s.",
            unit=SECONDS,
            width=8,
            queries=(Query(expression=_quantile(0.99), legend="{{job}} {{operation}}"),),
        ),
        Panel(
            title="Failed calls by reason",
            description="Failed calls a second by reason.",
            unit=RATE,
            width=12,
            queries=(
                Query(
                    expression="sum by (job, reason) "
                    '(rate(rdstation_api_failures_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Refused for too many requests",
            description="Calls of the last 15 minutes to which RD Station responded with 429. The service keeps below "
            "RDSTATION_RATE_LIMIT, so that there should be none.",
            unit=COUNT,
            width=12,
            queries=(
                Query(
                    expression="sum by (job) "
                    '(increase(rdstation_api_failures_total{reason="rate_limited",job=~"$job"}[15m]))'
                ),
            ),
            alerts=("RDStationRateLimited",),
        ),
    ),
)

LEADS = Row(
    title="Leads",
    panels=(
        Panel(
            title="Leads throughput",
            description="Answers with leads a second, by where they came from: the cache (hit), RD Station (miss), or "
            "the cache after its time, while RD Station is asked or fails (stale).",
            unit=RATE,
            width=12,
            queries=(
                Query(
                    expression="sum by (job, cache) "
                    '(rate(rdstation_leads_served_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{cache}}",
                ),
            ),
        ),
        Panel(
            title="Old leads",
            description="Part of the responses of the last 30 minutes with leads older than RDSTATION_CACHE_TTL. The "
            "alert wants as well that RD Station gave no new ones.",
            unit=RATIO,
            width=12,
            queries=(
                Query(
                    expression="sum by (job) "
                    '(increase(rdstation_leads_served_total{cache="stale",job=~"$job"}[30m]))'
                    ' / sum by (job) (increase(rdstation_leads_served_total{job=~"$job"}[30m]))'
                ),
            ),
            alerts=("RDStationLeadsStale",),
        ),
        Panel(
            title="Lead events",
            description="Events a second that RD Station delivered, by what became of them. Refused ones were "
            "unusable, in a flood, or sent to an address that is not in force.",
            unit=RATE,
            width=24,
            queries=(
                Query(
                    expression="sum by (job, result) "
                    '(rate(rdstation_webhook_events_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{result}}",
                ),
            ),
        ),
    ),
)
