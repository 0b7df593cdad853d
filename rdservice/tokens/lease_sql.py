"""The SQL statements of `rdservice.tokens.leases`."""

LIVE = "status <> 'reauthorization_required'"
# When workers may lease a row. `due_at` leaves out `undecryptable_until`, since another process may have the key.
DUE_FOR_WORKERS = "GREATEST(due_at, undecryptable_until)"
# FOR NO KEY UPDATE, like the UPDATE that follows: inserting a row that refers to an account locks the account FOR KEY
# SHARE, and with FOR UPDATE this statement would skip it.
PICK_DUE = f"""
SELECT account_id FROM rdstation_tokens
 WHERE {LIVE} AND {DUE_FOR_WORKERS} <= rd_now()
 ORDER BY {DUE_FOR_WORKERS} LIMIT %(slots)s
   FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - only texts of this module
# With a backlog, tokens nearest to expiry come first; due times do not show which those are, since refreshes are spread
# at random. Expired tokens can wait. A row may change between the read and the lock, so the outer query checks again
# that it is due; otherwise two workers would lease it one after the other. COALESCE keeps the planner from using the
# index on due times for that check: with statistics from quieter days it would read that index from end to end. The
# subquery around rd_now() hides the time from the planner: if it expected almost no live rows, it would sort them all.
PICK_NEAREST = f"""
SELECT t.account_id
  FROM (SELECT account_id, expires_at, {DUE_FOR_WORKERS} AS due_at FROM rdstation_tokens
         WHERE {LIVE} AND expires_at > (SELECT rd_now())
         ORDER BY expires_at LIMIT 1000) AS nearest
  JOIN rdstation_tokens t USING (account_id)
 WHERE nearest.due_at <= rd_now()
   AND t.{LIVE} AND COALESCE(GREATEST(t.due_at, t.undecryptable_until), 'infinity') <= rd_now()
 ORDER BY nearest.expires_at LIMIT %(slots)s
   FOR NO KEY UPDATE OF t SKIP LOCKED
"""  # noqa: S608 - only texts of this module
# Refused accounts of which a second look is due. The lease and `undecryptable_until` are in the index, so that a look
# never reads past rows that wait.
SECOND_LOOK_DUE = "GREATEST(second_look_at, leased_until, undecryptable_until)"
PICK_SECOND_LOOKS = f"""
SELECT account_id FROM rdstation_tokens
 WHERE status = 'reauthorization_required' AND second_look_at IS NOT NULL AND {SECOND_LOOK_DUE} <= rd_now()
 ORDER BY {SECOND_LOOK_DUE} LIMIT %(slots)s
   FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - only texts of this module
CAN_DECRYPT_ANY = (
    "SELECT EXISTS (SELECT FROM rdstation_tokens WHERE left(refresh_token, 8) = ANY (%(key_ids)s))"
)
# The row must be as the caller saw it: if another process has refreshed the token since, there is nothing to do.
UNCHANGED_AND_FREE = """
SELECT account_id FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND stored_claim = %(stored_claim)s
   AND COALESCE(leased_until, '-infinity') <= rd_now()
"""
NOT_REFUSED = "status <> 'reauthorization_required' AND COALESCE(retry_at, '-infinity') <= rd_now()"
PICK_SEEN = f"""{UNCHANGED_AND_FREE}
   AND {NOT_REFUSED}
   FOR NO KEY UPDATE SKIP LOCKED
"""
# RD Station refused an access token that should be valid. That justifies one refresh in five minutes.
PICK_REJECTED = f"""{UNCHANGED_AND_FREE}
   AND {NOT_REFUSED}
   AND NOT EXISTS (
       SELECT FROM rdstation_refresh_attempts
        WHERE account_id = %(account_id)s AND reason = 'rejected' AND started_at > rd_now() - interval '5 minutes')
   FOR NO KEY UPDATE SKIP LOCKED
"""
# An operator may try a refused token again, whatever back-off there was before. READ of `store` tells how long to wait.
PICK_FOR_OPERATOR = f"""{UNCHANGED_AND_FREE}
   AND ({NOT_REFUSED}
        OR status = 'reauthorization_required'
           AND COALESCE(attempted_at, '-infinity') <= rd_now() - make_interval(secs => %(refused_s)s))
   FOR NO KEY UPDATE SKIP LOCKED
"""
# The same statement inserts the attempt: this proves that the database accepts writes before a refresh token is used.
LEASE = """
WITH picked AS ({pick}),
claimed AS (
    UPDATE rdstation_tokens t
       SET holder = gen_random_uuid(), leased_until = rd_now() + make_interval(secs => %(lease_s)s),
           attempted_at = rd_now()
      FROM picked WHERE t.account_id = picked.account_id
    RETURNING t.account_id, t.refresh_token, t.authorization_id, t.stored_claim, t.holder, t.name, t.name_due,
              t.refresh_after, t.status = 'reauthorization_required' AS refused),
numbered AS (SELECT rd_next_claim(stored_claim) AS claim_no, claimed.* FROM claimed ORDER BY refresh_after),
attempt AS (
    INSERT INTO rdstation_refresh_attempts (claim_no, account_id, authorization_id, reason, claimed_by, started_at)
    SELECT claim_no, account_id, authorization_id, %(reason)s, %(claimed_by)s, rd_now() FROM numbered)
SELECT claim_no AS fence, account_id, refresh_token, authorization_id, stored_claim, holder, name, name_due,
       refused, rd_now() AS claimed_at
  FROM numbered ORDER BY fence
"""
HOLDS = """
SELECT 1 FROM rdstation_tokens
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
"""
# In a statement of its own, before STORE and REFUSE: an upload, or a refusal that makes two pairs change places, may
# move the pair between the two tables meanwhile. A statement that waits for that sees the row as it is then, but the
# other table as it was when the statement began; the next statement sees both as they are.
LOCK = "SELECT 1 FROM rdstation_tokens WHERE account_id = %(account_id)s FOR NO KEY UPDATE"
# `<=`: storing the same response again, after a commit with an unknown result, changes nothing. If an upload has moved
# the pair aside meanwhile, the response goes there: RD Station may refuse the upload, and the kept refresh token has
# just been used up.
STORE = """
WITH stored AS (
    UPDATE rdstation_tokens
       SET access_token = %(access_token)s, refresh_token = COALESCE(%(refresh_token)s, refresh_token),
           issued_at = %(claimed_at)s, expires_at = %(expires_at)s,
           refresh_after = %(claimed_at)s
               + (%(expires_at)s - %(claimed_at)s) * (%(share)s - %(spread)s * random()),
           status = 'connected', stored_claim = %(claim_no)s, retry_at = NULL,
           undecryptable_until = NULL, holder = NULLIF(holder, %(holder)s),
           leased_until = CASE WHEN holder = %(holder)s THEN NULL ELSE leased_until END,
           failures = 0, refusals = 0, refused_since = NULL, second_look_at = NULL, second_looks = 0,
           last_error = NULL, refreshed_at = rd_now(), updated_at = rd_now()
     WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND stored_claim <= %(claim_no)s
    RETURNING account_id, name_due),
proven AS (
    DELETE FROM rdstation_replaced_tokens r USING stored
     WHERE r.account_id = stored.account_id AND NOT stored.name_due),
put_aside AS (
    UPDATE rdstation_replaced_tokens
       SET access_token = %(access_token)s, refresh_token = COALESCE(%(refresh_token)s, refresh_token),
           issued_at = %(claimed_at)s, expires_at = %(expires_at)s, stored_claim = %(claim_no)s, refusal = NULL
     WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND stored_claim <= %(claim_no)s)
SELECT 1 FROM stored
"""
# Names are not unique, and not always known: a row without a name may be of the same RD Station account.
IS_ORPHAN = """
SELECT NOT EXISTS (
    SELECT FROM rdstation_tokens
     WHERE account_id = %(account_id)s OR name IS NULL OR %(name)s::text IS NULL OR name = %(name)s)
"""
BACK_OFF = """
UPDATE rdstation_tokens
   SET failures = failures + 1, last_error = %(error)s, holder = NULL, leased_until = NULL, updated_at = rd_now(),
       retry_at = rd_now() + GREATEST(make_interval(secs => %(least_s)s), random() * LEAST(
           make_interval(secs => LEAST(%(last_s)s, %(first_s)s * 2 ^ LEAST(failures, 10))),
           (expires_at - issued_at) * %(share)s))
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
SLOW_DOWN = """
UPDATE rdstation_tokens
   SET failures = failures + 1, last_error = %(error)s, holder = NULL, leased_until = NULL, updated_at = rd_now(),
       retry_at = rd_now() + LEAST(
           make_interval(secs => LEAST(%(wait_s)s, %(last_s)s)),
           GREATEST((expires_at - rd_now()) / 4,
                    LEAST(make_interval(secs => %(first_s)s), (expires_at - issued_at) * %(share)s)))
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
# When the next second look is due: after pauses of its own, until a day after the access token ended. Of two pairs that
# change places the later end counts. Empty after that.
NEXT_SECOND_LOOK = """
(SELECT at FROM (SELECT rd_now() + make_interval(secs => (%(pauses_s)s::float8[])[
                     LEAST({made} + 1, cardinality(%(pauses_s)s::float8[]))]) AS at) AS look
  WHERE at <= interval '1 day' + GREATEST(t.expires_at, (
      SELECT k.expires_at FROM rdstation_replaced_tokens k WHERE k.account_id = t.account_id)))
"""
# `unknown`: an earlier attempt with this authorization has no known outcome. It may have used up the refresh token that
# was refused now, and its response may still be stored.
REFUSE = f"""
WITH earlier AS (
    SELECT EXISTS (
        SELECT FROM rdstation_refresh_attempts
         WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s
           AND claim_no > %(stored_claim)s AND claim_no < %(claim_no)s
           AND (outcome IS NULL OR answer_unknown)) AS unknown),
judged AS (
    SELECT t.account_id, earlier.unknown,
           NOT (earlier.unknown OR %(doubtful)s)
           OR (t.refusals + 1 >= %(needed)s
               AND t.refused_since <= rd_now() - make_interval(secs => %(over_s)s)) AS final
      FROM rdstation_tokens t, earlier
     WHERE t.account_id = %(account_id)s)
UPDATE rdstation_tokens t
   SET status = CASE WHEN judged.final THEN 'reauthorization_required' ELSE t.status END,
       last_error = CASE WHEN judged.unknown THEN 'answer_lost' ELSE %(error)s END,
       refusals = t.refusals + 1, refused_since = COALESCE(t.refused_since, rd_now()), failures = t.failures + 1,
       retry_at = CASE WHEN NOT judged.final THEN rd_now() + LEAST(
           make_interval(secs => %(over_s)s / 2.0 + 1), (t.expires_at - t.issued_at) * %(share)s) END,
       second_look_at = CASE WHEN judged.final THEN {NEXT_SECOND_LOOK.format(made=0)} END,
       second_looks = 0,
       holder = NULL, leased_until = NULL, updated_at = rd_now()
  FROM judged
 WHERE t.account_id = judged.account_id AND t.authorization_id = %(authorization_id)s AND t.holder = %(holder)s
   AND t.stored_claim = %(stored_claim)s
RETURNING judged.final, t.last_error
"""  # noqa: S608 - only texts of this module
# An exchange of a token that was refused already changes nothing but the time of the next second look, unless RD
# Station accepts the token. `counts`: how many second looks it was, 0 or 1.
UNCHANGED_REFUSAL = """
 WHERE t.account_id = %(account_id)s AND t.authorization_id = %(authorization_id)s AND t.holder = %(holder)s
   AND t.stored_claim = %(stored_claim)s
"""
REFUSE_AGAIN = f"""
UPDATE rdstation_tokens t
   SET second_look_at = CASE WHEN %(counts)s = 0 THEN t.second_look_at
                             ELSE {NEXT_SECOND_LOOK.format(made="t.second_looks + 1")} END,
       second_looks = t.second_looks + %(counts)s, holder = NULL, leased_until = NULL
{UNCHANGED_REFUSAL}
RETURNING true, t.last_error
"""  # noqa: S608 - only texts of this module
LOOK_LATER = f"""
UPDATE rdstation_tokens t
   SET second_look_at = CASE WHEN %(counts)s = 0 THEN t.second_look_at
                             ELSE {NEXT_SECOND_LOOK.format(made=0)} END,
       holder = NULL, leased_until = NULL
{UNCHANGED_REFUSAL}
RETURNING 1
"""  # noqa: S608 - only texts of this module
SAME_NAME_WORKS = """
SELECT EXISTS (SELECT FROM rdstation_tokens
                WHERE name = %(name)s AND account_id <> %(account_id)s
                  AND status = 'connected' AND expires_at > rd_now())
"""
# The row stays due, behind all others: the next probe takes another account, in case RD Station denies only this one.
CREDENTIALS_REFUSED = """
UPDATE rdstation_tokens
   SET status = 'credentials_refused', last_error = 'credentials', failures = failures + 1, retry_at = rd_now(),
       holder = NULL, leased_until = NULL, updated_at = rd_now()
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
# No exchange can help when the value is unreadable, only a new authorization or a repaired row.
DAMAGED = """
UPDATE rdstation_tokens
   SET status = 'reauthorization_required', last_error = 'damaged', failures = failures + 1, second_look_at = NULL,
       holder = NULL, leased_until = NULL, updated_at = rd_now()
 WHERE account_id = %(account_id)s AND authorization_id = %(authorization_id)s AND holder = %(holder)s
RETURNING 1
"""
RELEASE = """
UPDATE rdstation_tokens SET holder = NULL, leased_until = NULL
 WHERE account_id = %(account_id)s AND holder = %(holder)s
"""
POSTPONE = """
UPDATE rdstation_tokens
   SET undecryptable_until = rd_now() + make_interval(secs => %(wait_s)s), holder = NULL, leased_until = NULL
 WHERE account_id = %(account_id)s AND holder = %(holder)s
"""
# When the lease of an exchange that still uses the kept pair ends; NULL without one.
KEPT_LEASED_UNTIL = """(
           SELECT max(a.started_at) + make_interval(secs => %(lease_s)s) FROM rdstation_refresh_attempts a
            WHERE a.account_id = kept.account_id AND a.authorization_id = kept.authorization_id AND a.outcome IS NULL
              AND a.started_at > rd_now() - make_interval(secs => %(lease_s)s))"""
# RD Station refused the row's pair while another one is kept: they change places, each with its own authorization. If
# RD Station has not refused the other, that one is due immediately, or when the lease of an exchange that still uses it
# ends. Both parts read both tables as they were before the statement.
SWAP = f"""
WITH kept AS (SELECT * FROM rdstation_replaced_tokens WHERE account_id = %(account_id)s),
put_aside AS (
    UPDATE rdstation_replaced_tokens k
       SET access_token = t.access_token, refresh_token = t.refresh_token, issued_at = t.issued_at,
           expires_at = t.expires_at, name = t.name, name_due = t.name_due, connection_id = t.connection_id,
           authorization_id = t.authorization_id, stored_claim = t.stored_claim, begun_with = t.begun_with,
           refusal = t.last_error
      FROM rdstation_tokens t WHERE k.account_id = %(account_id)s AND t.account_id = k.account_id)
UPDATE rdstation_tokens t
   SET access_token = kept.access_token, refresh_token = kept.refresh_token, issued_at = kept.issued_at,
       expires_at = kept.expires_at, name = kept.name, name_due = kept.name_due, connection_id = kept.connection_id,
       authorization_id = kept.authorization_id, stored_claim = kept.stored_claim, begun_with = kept.begun_with,
       cache_epoch = t.cache_epoch + 1, last_error = COALESCE(kept.refusal, 'upload_refused'),
       status = CASE WHEN kept.refusal IS NULL THEN 'connected' ELSE t.status END,
       failures = CASE WHEN kept.refusal IS NULL THEN 0 ELSE t.failures END,
       refusals = CASE WHEN kept.refusal IS NULL THEN 0 ELSE t.refusals END,
       refused_since = CASE WHEN kept.refusal IS NOT NULL THEN t.refused_since END,
       retry_at = CASE WHEN kept.refusal IS NOT NULL THEN t.retry_at END,
       second_look_at = CASE WHEN kept.refusal IS NOT NULL THEN t.second_look_at END,
       second_looks = CASE WHEN kept.refusal IS NULL THEN 0 ELSE t.second_looks END,
       refresh_after = rd_now(), undecryptable_until = NULL, updated_at = rd_now(),
       leased_until = {KEPT_LEASED_UNTIL}
  FROM kept WHERE t.account_id = kept.account_id
RETURNING kept.refusal IS NULL
"""  # noqa: S608 - only texts of this module
SECONDS_UNTIL_DUE = f"""
SELECT EXTRACT(epoch FROM min({DUE_FOR_WORKERS}) - rd_now())::float8 FROM rdstation_tokens WHERE {LIVE}
"""  # noqa: S608 - only texts of this module
