-- What a function means must not depend on the search_path of its caller, who could put another rd_now(), another table
-- or another operator in front. Temporary tables, which are found first unless pg_temp is named, come last.
DO $$
DECLARE
    ours regprocedure;
BEGIN
    FOREACH ours IN ARRAY ARRAY[
        'rdservice_audit_append_only()', 'rdservice_audit_kept_from()', 'rdstation_cache_forget()',
        'rd_next_claim(bigint)']::regprocedure[]
    LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SET search_path = pg_catalog, %s, pg_temp',
            ours, (SELECT pronamespace::regnamespace FROM pg_proc WHERE oid = ours));
    END LOOP;
END $$;

-- A function with settings of its own is not inlined, and no index would serve what is due: a qualified name instead.
CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now()';
