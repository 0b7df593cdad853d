-- Who may use the service: operators with their sessions, API keys, and counters of failed attempts.

CREATE TABLE rdservice_operators (
    operator_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- Stored in lower case by rdservice.access.operators, so that unique means unique whatever the case.
    email text NOT NULL UNIQUE,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT rd_now(),
    password_changed_at timestamptz NOT NULL DEFAULT rd_now()
);

CREATE TABLE rdservice_sessions (
    -- SHA-256 of the random value in the cookie: a copy of this table opens no session.
    token_hash bytea PRIMARY KEY,
    operator_id uuid NOT NULL REFERENCES rdservice_operators ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT rd_now(),
    last_seen_at timestamptz NOT NULL DEFAULT rd_now()
);
CREATE INDEX rdservice_sessions_operator ON rdservice_sessions (operator_id);
CREATE INDEX rdservice_sessions_last_seen ON rdservice_sessions (last_seen_at);

CREATE TABLE rdservice_api_keys (
    key_id text PRIMARY KEY CHECK (key_id ~ '^[a-z2-7]{8}$'),
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at timestamptz NOT NULL DEFAULT rd_now(),
    created_by text NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz
);

-- Failed log-ins and refused keys. The subject is a keyed hash: neither address nor e-mail can be read from it.
CREATE TABLE rdservice_access_failures (
    subject bytea PRIMARY KEY,
    failures integer NOT NULL,
    window_ends_at timestamptz NOT NULL
);
CREATE INDEX rdservice_access_failures_age ON rdservice_access_failures (window_ends_at);
