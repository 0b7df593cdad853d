-- The times of an account's last calls, one row for each of RD Station's limits.
--
-- rdstation_rate_budgets, which counted by the second, stays for processes of the earlier version while a deployment
-- rolls; nothing writes to it afterwards, and a later migration drops it.

-- Outlives the account's row: RD Station goes on counting when an account is removed and connected again.
CREATE TABLE rdstation_rate_limits (
    -- Whose calls are counted together: the account.
    budget text NOT NULL,
    class text NOT NULL,
    -- When the calls of one window were made, or will be: places may be reserved a little ahead.
    calls timestamptz[] NOT NULL DEFAULT '{}',
    -- When the next call in the background is due at an even pace.
    background_at timestamptz,
    closed_until timestamptz,
    -- Of the last use. It changes once an hour, so that all other updates leave the index alone.
    used_in_hour timestamptz NOT NULL DEFAULT date_trunc('hour', rd_now()),
    PRIMARY KEY (budget, class)
) WITH (fillfactor = 50);
-- In the row itself, also the 4 kB of the largest plan's 500 calls.
ALTER TABLE rdstation_rate_limits ALTER COLUMN calls SET STORAGE MAIN;
CREATE INDEX rdstation_rate_limits_age ON rdstation_rate_limits (used_in_hour);
