-- What needs a person, and the messages that say so.

CREATE TABLE rdservice_incidents (
    incident_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('reauthorization_required', 'expiring', 'credentials_refused')),
    -- NULL: a matter of the settings and of no single account.
    account_id text,
    opened_at timestamptz NOT NULL DEFAULT rd_now(),
    -- Since when all has been well again without a break. An incident ends only after some minutes of it.
    well_since timestamptz,
    closed_at timestamptz,
    ending text CHECK (ending IN ('recovered', 'replaced', 'gone')),
    -- The messages that tell of its beginning and its end. No reference: an incident is told once, however long the
    -- message is kept.
    opened_in bigint,
    recovered_in bigint,
    CHECK ((account_id IS NULL) = (kind = 'credentials_refused')),
    CHECK ((closed_at IS NULL) = (ending IS NULL))
);
-- One open incident for an account, and one for the settings.
CREATE UNIQUE INDEX rdservice_incidents_open ON rdservice_incidents (account_id) NULLS NOT DISTINCT
    WHERE closed_at IS NULL;
CREATE INDEX rdservice_incidents_untold ON rdservice_incidents (opened_at) WHERE opened_in IS NULL AND closed_at IS NULL;
CREATE INDEX rdservice_incidents_recovered ON rdservice_incidents (closed_at)
    WHERE ending = 'recovered' AND opened_in IS NOT NULL AND recovered_in IS NULL;
CREATE INDEX rdservice_incidents_opened_in ON rdservice_incidents (opened_in) WHERE opened_in IS NOT NULL;
CREATE INDEX rdservice_incidents_recovered_in ON rdservice_incidents (recovered_in) WHERE recovered_in IS NOT NULL;
CREATE INDEX rdservice_incidents_age ON rdservice_incidents (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE rdservice_notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('incidents', 'test')),
    created_at timestamptz NOT NULL DEFAULT rd_now()
);
CREATE INDEX rdservice_notifications_age ON rdservice_notifications (created_at);

-- A message to one target.
CREATE TABLE rdservice_deliveries (
    notification_id bigint NOT NULL REFERENCES rdservice_notifications ON DELETE CASCADE,
    -- A keyed hash of the target's URL, which is a secret.
    target text NOT NULL,
    -- What people may see of the target.
    label text NOT NULL,
    -- While it is empty the message is still to be sent. not_needed: all was well before it could be.
    outcome text CHECK (outcome IN ('sent', 'given_up', 'not_needed')),
    attempts integer NOT NULL DEFAULT 0,
    -- The end of the lease, while somebody sends it.
    next_attempt_at timestamptz NOT NULL DEFAULT rd_now(),
    holder uuid,
    attempted_at timestamptz,
    error text,
    PRIMARY KEY (notification_id, target)
);
CREATE INDEX rdservice_deliveries_due ON rdservice_deliveries (next_attempt_at) WHERE outcome IS NULL;
