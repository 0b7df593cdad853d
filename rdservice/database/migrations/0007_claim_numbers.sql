-- The number of a claim: higher than that of any attempt, and than that of the answer in the account's row. The sequence
-- alone does not promise this. After a restored backup or the takeover by a standby it may stand lower than a number that
-- was given out before and comes back with a late answer, or than the rows of a table that was restored without it.
CREATE FUNCTION rd_next_claim(stored_claim bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint := nextval('rdstation_claims');
    highest bigint := GREATEST(stored_claim, (SELECT max(claim_no) FROM rdstation_refresh_attempts));
BEGIN
    IF number > highest OR highest IS NULL THEN
        RETURN number;
    END IF;
    -- One after the other, or a lower one would set the sequence back.
    PERFORM pg_advisory_xact_lock('rdstation_claims'::regclass::oid::bigint);
    PERFORM setval('rdstation_claims', highest) FROM rdstation_claims WHERE last_value < highest;
    RETURN nextval('rdstation_claims');
END $$;
