-- Tokens, their refresh attempts, and what is known of the client credentials.

-- The one source of time for all statements. STABLE and in SQL, so that the planner inlines it and can use indexes;
-- a simulation replaces it.
CREATE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()';

-- Orders claims: an answer is stored only over answers of earlier claims.
CREATE SEQUENCE rdstation_claims;

-- An older backend may have left a table of this name; rdservice.database.older_table has given its rows these columns.
CREATE TABLE IF NOT EXISTS rdstation_tokens (
    account_id text,
    access_token text,
    refresh_token text,
    expires_at timestamptz
);

ALTER TABLE rdstation_tokens
    ADD COLUMN issued_at timestamptz,
    ADD COLUMN status text NOT NULL DEFAULT 'connected'
        CHECK (status IN ('connected', 'unverified', 'credentials_refused', 'reauthorization_required')),
    ADD COLUMN name text,
    ADD COLUMN connection_id uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN authorization_id uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN stored_claim bigint NOT NULL DEFAULT 0,
    ADD COLUMN refresh_after timestamptz NOT NULL DEFAULT rd_now(),
    ADD COLUMN retry_at timestamptz,
    ADD COLUMN holder uuid,
    ADD COLUMN leased_until timestamptz,
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN refusals integer NOT NULL DEFAULT 0,
    ADD COLUMN refused_since timestamptz,
    ADD COLUMN last_error text,
    ADD COLUMN attempted_at timestamptz,
    ADD COLUMN refreshed_at timestamptz,
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT rd_now(),
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT rd_now();

UPDATE rdstation_tokens SET issued_at = LEAST(rd_now(), expires_at - interval '1 day');
UPDATE rdstation_tokens SET status = 'reauthorization_required', last_error = 'no_refresh_token'
 WHERE refresh_token = '';

ALTER TABLE rdstation_tokens
    ADD COLUMN due_at timestamptz
        GENERATED ALWAYS AS (GREATEST(LEAST(refresh_after, expires_at), retry_at, leased_until)) STORED,
    ALTER COLUMN access_token SET NOT NULL,
    ALTER COLUMN refresh_token SET NOT NULL,
    ALTER COLUMN expires_at SET NOT NULL,
    ALTER COLUMN issued_at SET NOT NULL,
    -- The older backend may know fewer columns, and goes on writing until it is replaced.
    ALTER COLUMN account_id SET DEFAULT 'default',
    ALTER COLUMN access_token SET DEFAULT '',
    ALTER COLUMN refresh_token SET DEFAULT '',
    ALTER COLUMN expires_at SET DEFAULT rd_now(),
    ALTER COLUMN issued_at SET DEFAULT rd_now(),
    ADD PRIMARY KEY (account_id),
    SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
         autovacuum_analyze_scale_factor = 0.05);

-- What the worker may claim, in the order in which it should. Rows that wait (leased or backing off) stand at the
-- moment at which they may be tried again, so a claim never reads past them.
CREATE INDEX rdstation_tokens_due ON rdstation_tokens (due_at) WHERE status <> 'reauthorization_required';

-- The pair that an upload replaced, until the uploaded refresh token has worked once.
CREATE TABLE rdstation_replaced_tokens (
    account_id text PRIMARY KEY REFERENCES rdstation_tokens ON DELETE CASCADE,
    access_token text NOT NULL,
    refresh_token text NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    name text,
    connection_id uuid NOT NULL,
    authorization_id uuid NOT NULL,
    stored_claim bigint NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT rd_now()
);

CREATE TABLE rdstation_refresh_attempts (
    claim_no bigint PRIMARY KEY,
    account_id text NOT NULL,
    authorization_id uuid NOT NULL,
    reason text NOT NULL CHECK (reason IN ('due', 'early', 'operator', 'rejected')),
    claimed_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT rd_now(),
    finished_at timestamptz,
    outcome text CHECK (outcome IN ('stored', 'refused', 'transient', 'superseded', 'released')),
    http_status smallint,
    duration_ms integer,
    error text,
    -- The request may have taken effect although no usable answer came back.
    answer_unknown boolean NOT NULL DEFAULT false
);
CREATE INDEX rdstation_refresh_attempts_account ON rdstation_refresh_attempts (account_id, claim_no DESC);
CREATE INDEX rdstation_refresh_attempts_age ON rdstation_refresh_attempts (started_at);

-- What RD Station thinks of a client id with its list of secrets, known by a fingerprint.
CREATE TABLE rdstation_client_credentials (
    fingerprint text PRIMARY KEY,
    last_success_at timestamptz,
    refused_since timestamptz,
    probe_after timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT rd_now()
);

CREATE TABLE rdstation_workers (
    worker text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT rd_now(),
    beat_at timestamptz NOT NULL DEFAULT rd_now()
);
