-- Lead events that RD Station delivers, and the secrets in the addresses at which it may.

-- What an account's events are numbered by. Outlives the account's row: whoever remembers a number must not meet lower
-- ones when the account was removed and connected again.
CREATE TABLE rdservice_event_streams (
    account_id text PRIMARY KEY,
    last_number bigint NOT NULL DEFAULT 0,
    -- Of all events that there ever were: those whose ends_at lies too far behind are one too many.
    total_bytes bigint NOT NULL DEFAULT 0,
    -- How many events were taken since then; a flood is refused.
    counted_from timestamptz NOT NULL DEFAULT '-infinity',
    counted integer NOT NULL DEFAULT 0,
    -- When an event last told that a lead has changed. Never goes back.
    leads_changed_at timestamptz
) WITH (fillfactor = 50);

CREATE TABLE rdservice_events (
    account_id text NOT NULL REFERENCES rdstation_tokens ON DELETE CASCADE,
    number bigint NOT NULL,
    connection_id uuid NOT NULL,
    event_type text NOT NULL CHECK (event_type IN ('WEBHOOK.CONVERTED', 'WEBHOOK.MARKED_OPPORTUNITY')),
    event_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT rd_now(),
    -- Whether a newer event of the same lead was there before.
    late boolean NOT NULL,
    -- Keyed hashes: of what makes two deliveries the same event, and of whom it is about.
    identity bytea NOT NULL,
    lead bytea NOT NULL,
    -- Encrypted, bound to the identity.
    payload text NOT NULL,
    -- The stream's total_bytes after this event.
    ends_at bigint NOT NULL,
    PRIMARY KEY (account_id, number),
    CONSTRAINT rdservice_events_once UNIQUE (identity)
);
-- Compressed before it is encrypted, and of no use to the planner.
ALTER TABLE rdservice_events ALTER COLUMN payload SET STORAGE EXTERNAL, ALTER COLUMN payload SET STATISTICS 0;
CREATE INDEX rdservice_events_lead ON rdservice_events (account_id, lead, event_at);
CREATE INDEX rdservice_events_connection ON rdservice_events (account_id, connection_id);
CREATE INDEX rdservice_events_age ON rdservice_events (received_at);

CREATE TABLE rdservice_subscriptions (
    -- SHA-256 of the secret in the address, as with API keys.
    secret_hash bytea PRIMARY KEY,
    account_id text NOT NULL REFERENCES rdstation_tokens ON DELETE CASCADE,
    -- Events of another RD Station account do not count as this one's.
    connection_id uuid NOT NULL,
    -- RD Station's ids of the subscriptions with this address, by event type.
    subscribed jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT rd_now(),
    -- NULL while they are being made.
    complete_at timestamptz
);
CREATE INDEX rdservice_subscriptions_account ON rdservice_subscriptions (account_id);
-- One process at a time makes an account's subscriptions.
CREATE UNIQUE INDEX rdservice_subscriptions_under_way ON rdservice_subscriptions (account_id)
    WHERE complete_at IS NULL;

-- When an event told that the lead under this key has changed: what was fetched before is out of date.
ALTER TABLE rdstation_cache ADD COLUMN changed_at timestamptz;
