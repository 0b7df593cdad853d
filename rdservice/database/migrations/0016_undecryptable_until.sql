-- Until then workers pass over a row, because one of them could not open its refresh token. It is no part of `due_at`, by
-- which an account is known to be overdue: where no worker has the key, somebody must be told.
ALTER TABLE rdstation_tokens ADD COLUMN undecryptable_until timestamptz;

-- What workers claim, in their order; see `rdservice.tokens.lease_sql`. It stands beside the index on `due_at`, which
-- older code uses until it is replaced.
CREATE INDEX rdstation_tokens_due_for_workers ON rdstation_tokens (GREATEST(due_at, undecryptable_until))
 WHERE status <> 'reauthorization_required';
