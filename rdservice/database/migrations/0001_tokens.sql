-- Tokens, their refresh attempts, and what is known of the client credentials.

-- The one source of time for all statements. STABLE and in SQL, so that the planner inlines it and can use indexes;
-- a simulation replaces it.
CREATE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()';

-- Orders claims: an answer is stored only over answers of earlier claims.
CREATE SEQUENCE rdstation_claims;

-- Reads an expiry in whatever form an older backend kept it: a date, with or without an offset from UTC, or the time
-- since 1970 in seconds, milli-, micro- or nanoseconds. What cannot be read is NULL and counts as passed.
CREATE FUNCTION pg_temp.moment(written text) RETURNS timestamptz LANGUAGE plpgsql SET timezone = 'UTC' AS $function$
DECLARE
    epoch numeric;
    found timestamptz;
BEGIN
    IF written ~ '^[0-9]+([.][0-9]+)?(e[+]?[0-9]+)?$' THEN
        epoch := written::numeric;
        found := to_timestamp((epoch / CASE WHEN epoch > 1e17 THEN 1e9 WHEN epoch > 1e14 THEN 1e6
                                            WHEN epoch > 1e11 THEN 1e3 ELSE 1 END)::double precision);
    ELSE
        found := written::timestamptz;
    END IF;
    RETURN CASE WHEN found BETWEEN '1970-01-01' AND '9999-12-31' THEN found END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $function$;

-- An older backend may have left a table of this name with plain tokens. Its rows and columns are kept; columns that
-- share a name with ours but not a meaning are renamed to legacy_*.
DO $$
DECLARE
    target regclass := to_regclass('rdstation_tokens');
    item record;
    has_columns text[];
BEGIN
    IF target IS NULL THEN
        CREATE TABLE rdstation_tokens ();
        RETURN;
    END IF;

    FOR item IN
        SELECT attname FROM pg_attribute
         WHERE attrelid = target AND attnum > 0 AND NOT attisdropped
           AND attname = ANY ('{issued_at,status,name,connection_id,authorization_id,stored_claim,refresh_after,
               retry_at,holder,leased_until,due_at,failures,refusals,refused_since,last_error,attempted_at,refreshed_at,
               created_at,updated_at}'::text[])
    LOOP
        EXECUTE format('ALTER TABLE rdstation_tokens RENAME COLUMN %I TO %I', item.attname, 'legacy_' || item.attname);
    END LOOP;

    -- Any column of the older backend must accept rows that do not name it.
    FOR item IN SELECT conname FROM pg_constraint WHERE conrelid = target AND contype IN ('p', 'c', 'u', 'x', 'f') LOOP
        EXECUTE format('ALTER TABLE rdstation_tokens DROP CONSTRAINT %I', item.conname);
    END LOOP;
    FOR item IN
        SELECT i.indexrelid::regclass AS name FROM pg_index i WHERE i.indrelid = target AND i.indisunique
    LOOP
        EXECUTE format('DROP INDEX %s', item.name);
    END LOOP;
    FOR item IN
        SELECT attname FROM pg_attribute
         WHERE attrelid = target AND attnum > 0 AND NOT attisdropped AND attnotnull AND attidentity = ''
    LOOP
        EXECUTE format('ALTER TABLE rdstation_tokens ALTER COLUMN %I DROP NOT NULL', item.attname);
    END LOOP;

    SELECT array_agg(attname::text) INTO has_columns FROM pg_attribute
     WHERE attrelid = target AND attnum > 0 AND NOT attisdropped;
    FOR item IN SELECT unnest('{account_id,access_token,refresh_token}'::text[]) AS attname LOOP
        IF item.attname = ANY (has_columns) THEN
            EXECUTE format('ALTER TABLE rdstation_tokens ALTER COLUMN %1$I DROP DEFAULT,
                                  ALTER COLUMN %1$I TYPE text USING %1$I::text', item.attname);
        END IF;
    END LOOP;
    IF 'expires_at' = ANY (has_columns) THEN
        ALTER TABLE rdstation_tokens ALTER COLUMN expires_at DROP DEFAULT,
            ALTER COLUMN expires_at TYPE timestamptz USING pg_temp.moment(expires_at::text);
    END IF;
END $$;
DROP FUNCTION pg_temp.moment(text);

ALTER TABLE rdstation_tokens
    ADD COLUMN IF NOT EXISTS account_id text,
    ADD COLUMN IF NOT EXISTS access_token text,
    ADD COLUMN IF NOT EXISTS refresh_token text,
    ADD COLUMN IF NOT EXISTS expires_at timestamptz,
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

UPDATE rdstation_tokens
   SET account_id = COALESCE(NULLIF(btrim(account_id), ''), 'default'),
       access_token = COALESCE(access_token, ''),
       refresh_token = COALESCE(refresh_token, ''),
       expires_at = CASE WHEN COALESCE(access_token, '') = '' THEN rd_now() ELSE COALESCE(expires_at, rd_now()) END;
UPDATE rdstation_tokens SET issued_at = LEAST(rd_now(), expires_at - interval '1 day');

-- A table without a unique key may hold an account twice. The same refresh token twice is one token; otherwise the
-- row that lasts longest is the account and the others stay under names of their own.
DELETE FROM rdstation_tokens a USING rdstation_tokens b
 WHERE a.account_id = b.account_id AND a.refresh_token = b.refresh_token
   AND (a.expires_at, a.ctid) < (b.expires_at, b.ctid);
WITH ranked AS (
    SELECT ctid AS row_id,
           row_number() OVER (PARTITION BY account_id ORDER BY (refresh_token <> '') DESC, expires_at DESC) AS place
      FROM rdstation_tokens
)
UPDATE rdstation_tokens t
   SET account_id = t.account_id || '~' || ranked.place
  FROM ranked
 WHERE t.ctid = ranked.row_id AND ranked.place > 1;

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
