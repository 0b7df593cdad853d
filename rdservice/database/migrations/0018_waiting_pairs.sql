-- Tokens that wait until it is known, or decided, to which connection they belong.

-- Whether the row's tokens were stored without knowing that they belong to the RD Station account of `name`.
ALTER TABLE rdstation_tokens
    ADD COLUMN name_due boolean NOT NULL DEFAULT false,
    -- When the worker asks for the name again; NULL: at once.
    ADD COLUMN ask_name_at timestamptz;
ALTER TABLE rdstation_replaced_tokens ADD COLUMN name_due boolean NOT NULL DEFAULT false;

-- With the expiry, so that accounts without a valid access token cost no look at their rows.
CREATE INDEX rdstation_tokens_unnamed ON rdstation_tokens (COALESCE(ask_name_at, '-infinity'), expires_at)
    WHERE name IS NULL OR name_due;
-- Accounts here that are connected to the same RD Station account.
CREATE INDEX rdstation_tokens_name ON rdstation_tokens (name);

-- Each callback parks its pair here before anything else can fail. The row outlives the pair: a browser that fetches
-- the callback twice gets the result of the first.
CREATE TABLE rdstation_waiting_pairs (
    -- SHA-256 of the session and the `state`, in hexadecimal digits.
    pair_id text PRIMARY KEY,
    operator_id uuid NOT NULL REFERENCES rdservice_operators ON DELETE CASCADE,
    -- SHA-256 of the session.
    session_hash bytea NOT NULL,
    account_id text NOT NULL,
    -- Encrypted; NULL while the code is exchanged, and when the pair was stored or dropped.
    access_token text,
    refresh_token text,
    issued_at timestamptz,
    expires_in_s integer,
    outcome text CHECK (outcome IN ('stored', 'dropped')),
    -- The question, or after 'stored' the result, for the page.
    shown jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT rd_now(),
    CHECK ((access_token IS NULL) = (refresh_token IS NULL)),
    CHECK (outcome IS NULL OR access_token IS NULL)
);
-- Of no use to the planner, and a sample would outlive the pair.
ALTER TABLE rdstation_waiting_pairs
    ALTER COLUMN access_token SET STATISTICS 0, ALTER COLUMN refresh_token SET STATISTICS 0;
CREATE INDEX rdstation_waiting_pairs_age ON rdstation_waiting_pairs (created_at);
