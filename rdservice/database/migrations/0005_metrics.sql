-- Counts of events, added up over all processes, and what the state shown beside them is read from.

CREATE TABLE rdservice_metric_totals (
    -- A JSON array of the sample's name and its labels, as in '["rdstation_leads_served_total", {"cache": "hit"}]'.
    -- In byte order, so that all processes lock rows in the same order whatever the database's locale.
    key text COLLATE "C" PRIMARY KEY,
    value double precision NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

-- What some of the sums were in the first moments of each hour of the last two days, so that pages can tell what
-- happened lately.
CREATE TABLE rdservice_metric_hours (
    hour timestamptz NOT NULL,
    key text COLLATE "C" NOT NULL,
    value double precision NOT NULL,
    taken_at timestamptz NOT NULL,
    PRIMARY KEY (hour, key)
);

-- The last batch that was taken from each process: one whose commit went unseen is not added a second time.
CREATE TABLE rdservice_metric_processes (
    process uuid PRIMARY KEY,
    sequence bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT rd_now()
);
CREATE INDEX rdservice_metric_processes_age ON rdservice_metric_processes (seen_at);

-- All that the metrics tell of tokens, without reading the rows with their long encrypted values.
CREATE INDEX rdstation_tokens_overview ON rdstation_tokens (status, expires_at, refreshed_at);
