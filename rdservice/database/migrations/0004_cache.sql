-- Answers of RD Station that all processes share, and what each account may still ask within the minute.

-- Raised when a person's data must go: what was fetched before can be neither read nor written any more.
ALTER TABLE rdstation_tokens ADD COLUMN cache_epoch integer NOT NULL DEFAULT 0;

CREATE TABLE rdstation_cache (
    -- Keyed hash of connection, epoch, operation and parameters, so that no e-mail address can be tested against it.
    key bytea PRIMARY KEY,
    account_id text NOT NULL REFERENCES rdstation_tokens ON DELETE CASCADE,
    connection_id uuid NOT NULL,
    epoch integer NOT NULL,
    -- Encrypted; with fetched_at NULL while there is none.
    value text,
    fetched_at timestamptz,
    -- Why the last call failed: code, detail and further members of the problem document. Gone after a success.
    failure jsonb,
    failed_until timestamptz,
    holder uuid,
    leased_until timestamptz,
    expires_at timestamptz NOT NULL,
    CHECK ((value IS NULL) = (fetched_at IS NULL))
);
-- Compressed before it is encrypted: another attempt would be in vain.
ALTER TABLE rdstation_cache ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE INDEX rdstation_cache_account ON rdstation_cache (account_id);
CREATE INDEX rdstation_cache_expiry ON rdstation_cache (expires_at);

CREATE FUNCTION rdstation_cache_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM rdstation_cache WHERE account_id = NEW.account_id;
    RETURN NULL;
END $$;
-- The leads of a connection go with it, however it was replaced.
CREATE TRIGGER rdstation_cache_forget
    AFTER UPDATE OF connection_id, cache_epoch ON rdstation_tokens FOR EACH ROW
    WHEN (OLD.connection_id <> NEW.connection_id OR OLD.cache_epoch <> NEW.cache_epoch)
    EXECUTE FUNCTION rdstation_cache_forget();

-- Outlives the account's row: RD Station goes on counting when an account is removed and connected again.
CREATE TABLE rdstation_rate_budgets (
    account_id text PRIMARY KEY,
    -- Calls of the last minute by second since 1970.
    calls jsonb NOT NULL,
    closed_until timestamptz,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX rdstation_rate_budgets_age ON rdstation_rate_budgets (updated_at);
