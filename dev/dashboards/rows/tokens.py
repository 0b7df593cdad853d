"""Rows about the tokens, and the workers that refresh them."""

from dev.dashboards.panel import COUNT, SECONDS, Panel, Query, Row

# The alert for a missing job has no label `job`.
FIRING = 'ALERTS{alertname=~"RDStation.+|RDService.+",alertstate="firing",job=~"$job|"}'

STATE = Row(
    title="Is it all right?",
    panels=(
        Panel(
            title="Alerts that fire",
            description="How many of the service's alerts fire. 0 as well where Prometheus has no rules: the panel "
            "'Requests that failed' is empty then.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(Query(expression=f"count({FIRING}) or vector(0)", legend="alerts"),),
            steps=((1, "red"),),
        ),
        Panel(
            title="Time left of the first token",
            description="Until the first of the access tokens that are still refreshed expires. A token of 24 h is "
            "refreshed with 8.4 h or more left.",
            kind="stat",
            unit=SECONDS,
            width=4,
            queries=(
                Query(
                    expression="min by (job) "
                    '(rdstation_token_earliest_expiry_timestamp_seconds{job=~"$job"}) - time()'
                ),
            ),
            alerts=("RDStationTokenExpired", "RDStationTokenExpiresSoon"),
            empty="no token",
        ),
        Panel(
            title="Accounts to authorize again",
            description="RD Station no longer accepts their refresh tokens. A person has to connect them again.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(
                Query(
                    expression='max by (job) (rdstation_tokens{state="reauthorization_required",job=~"$job"})'
                ),
            ),
            alerts=("RDStationReauthorizationRequired",),
        ),
        Panel(
            title="Accounts with refused credentials",
            description="RD Station refuses the client ID or the client secret; the settings are to be corrected.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(
                Query(expression='max by (job) (rdstation_tokens{state="credentials_refused",job=~"$job"})'),
            ),
            alerts=("RDStationCredentialsRefused",),
        ),
        Panel(
            title="Last heartbeat of a worker",
            description="Time since any worker last gave one; it should every 10 s.",
            kind="stat",
            unit=SECONDS,
            width=4,
            queries=(
                Query(
                    expression="time() - max by (job) "
                    '(rdstation_worker_heartbeat_timestamp_seconds{job=~"$job"})'
                ),
            ),
            alerts=("RDStationWorkerStalled",),
            empty="no worker",
        ),
        Panel(
            title="Metrics",
            description="Whether Prometheus can read the metrics. While it cannot, only this panel is to be trusted.",
            kind="stat",
            unit=COUNT,
            width=4,
            queries=(Query(expression='min by (job) (up{job=~"$job"})'),),
            alerts=("RDServiceDown",),
            values={0: "not read", 1: "read"},
            empty="no job",
        ),
        Panel(
            title="Tokens by state",
            description="Connected accounts by the state of their tokens. expired and unverified are tried again by "
            "themselves.",
            kind="stat",
            unit=COUNT,
            width=14,
            queries=(
                Query(
                    expression='max by (job, state) (rdstation_tokens{job=~"$job"})',
                    legend="{{job}} {{state}}",
                ),
            ),
        ),
        Panel(
            title="Which alerts fire",
            description="By name. docs/en/operate/runbook.md says for each what to do.",
            kind="table",
            unit=COUNT,
            width=10,
            queries=(
                Query(
                    expression=f"count by (alertname, severity, job) ({FIRING})",
                    legend="{{alertname}}",
                ),
            ),
            empty="none",
        ),
    ),
)

AUTHENTICATION = Row(
    title="Authentication",
    panels=(
        Panel(
            title="Authentication failures by stage",
            description="How often RD Station refused a code (code_exchange), a refresh token or the client "
            "credentials (refresh), or an access token (api_call).",
            unit=COUNT,
            width=8,
            queries=(
                Query(
                    expression="sum by (job, stage) "
                    '(increase(rdstation_auth_failures_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{stage}}",
                ),
            ),
        ),
        Panel(
            title="Refreshes by result",
            description="Refreshes of access tokens. transient: will be retried; superseded: a newer token was stored; "
            "waited: another process was refreshing the same token.",
            unit=COUNT,
            width=8,
            queries=(
                Query(
                    expression="sum by (job, result) "
                    '(increase(rdstation_token_refreshes_total{job=~"$job"}[$__rate_interval]))',
                    legend="{{job}} {{result}}",
                ),
            ),
        ),
        Panel(
            title="Refused access tokens",
            description="Calls of the last 15 minutes that got a 401 from RD Station. One of them resolves itself: the "
            "token is refreshed and the call repeated.",
            unit=COUNT,
            width=8,
            queries=(
                Query(
                    expression="sum by (job) (increase(rdstation_api_failures_total"
                    '{reason="unauthorized",operation!~"token_.*|account_info|revoke",job=~"$job"}[15m]))'
                ),
            ),
            alerts=("RDStationUnauthorizedCalls",),
        ),
        Panel(
            title="Last refresh",
            description="Time since RD Station last issued a token to any account.",
            kind="stat",
            unit=SECONDS,
            width=24,
            queries=(
                Query(
                    expression="time() - max by (job) "
                    '(rdstation_token_last_refresh_success_timestamp_seconds{job=~"$job"})'
                ),
            ),
            empty="never",
        ),
    ),
)
