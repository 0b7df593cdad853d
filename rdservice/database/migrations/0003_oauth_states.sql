-- Authorizations that an operator has begun and not yet finished (the `state` of RFC 6749 10.12).

CREATE TABLE rdstation_oauth_states (
    -- SHA-256 of the value that travels through the browser.
    state_hash bytea PRIMARY KEY,
    operator_id uuid NOT NULL REFERENCES rdservice_operators ON DELETE CASCADE,
    account_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT rd_now()
);
CREATE INDEX rdstation_oauth_states_age ON rdstation_oauth_states (created_at);
