-- Who did what, when and from where.

CREATE TABLE rdservice_audit (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT rd_now(),
    -- From the closed list in rdservice.access.audit.
    action text NOT NULL,
    actor_kind text NOT NULL CHECK (actor_kind IN ('operator', 'key', 'command', 'unknown')),
    actor_id text,
    -- As it was then: an operator's e-mail, a key's name, the command's user on the operating system.
    actor_name text,
    -- The route or the command.
    origin text NOT NULL,
    request_id text,
    account_id text,
    -- What was acted upon, where that is no account: a key's id, an operator's e-mail.
    subject text,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX rdservice_audit_age ON rdservice_audit (happened_at);

-- Entries from this moment on are kept. The only place that says for how long.
CREATE FUNCTION rdservice_audit_kept_from() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$SELECT rd_now() - interval '400 days'$$;

-- Rights cannot do this: where there is one role it owns the table, and an owner has all rights.
CREATE FUNCTION rdservice_audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- Nobody writes of another time.
        NEW.happened_at := rd_now();
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' AND TG_LEVEL = 'ROW' THEN
        IF OLD.happened_at < rdservice_audit_kept_from() THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'rdservice_audit can only be appended to; entries go when they are 400 days old'
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER rdservice_audit_append_only BEFORE INSERT OR UPDATE OR DELETE ON rdservice_audit
    FOR EACH ROW EXECUTE FUNCTION rdservice_audit_append_only();
CREATE TRIGGER rdservice_audit_never_truncated BEFORE TRUNCATE ON rdservice_audit
    FOR EACH STATEMENT EXECUTE FUNCTION rdservice_audit_append_only();
