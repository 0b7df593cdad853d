-- Pairs that change places, refresh tokens that are known to be used, and second looks at refused accounts.

ALTER TABLE rdstation_tokens
    -- Keyed hash of the refresh token with which the authorization began, bound to `authorization_id`. When a program
    -- uploads that token again after it was rotated here, nothing is stored.
    ADD COLUMN begun_with text,
    -- When the worker tries a refused refresh token once more, and how many times RD Station has refused it since.
    -- NULL: no more. Only for `reauthorization_required`.
    ADD COLUMN second_look_at timestamptz,
    ADD COLUMN second_looks integer NOT NULL DEFAULT 0;
ALTER TABLE rdstation_tokens ALTER COLUMN begun_with SET STATISTICS 0;

ALTER TABLE rdstation_replaced_tokens
    ADD COLUMN begun_with text,
    -- The row's `last_error` if RD Station refused this pair before it was put here.
    ADD COLUMN refusal text;
ALTER TABLE rdstation_replaced_tokens ALTER COLUMN begun_with SET STATISTICS 0;

-- What second looks lease, in their order; see `rdservice.tokens.lease_sql`.
CREATE INDEX rdstation_tokens_second_looks
    ON rdstation_tokens (GREATEST(second_look_at, leased_until, undecryptable_until))
 WHERE status = 'reauthorization_required' AND second_look_at IS NOT NULL;
-- Whether another row with the same name works.
CREATE INDEX rdstation_tokens_working ON rdstation_tokens (name) WHERE status = 'connected' AND name IS NOT NULL;

-- NOT VALID: the rows that are there follow the narrower rule of before, so that nothing need be read.
ALTER TABLE rdstation_refresh_attempts
    DROP CONSTRAINT rdstation_refresh_attempts_reason_check,
    ADD CONSTRAINT rdstation_refresh_attempts_reason_check
        CHECK (reason IN ('due', 'early', 'operator', 'rejected', 'second_look')) NOT VALID;
