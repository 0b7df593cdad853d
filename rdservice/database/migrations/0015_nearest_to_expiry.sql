-- When renewals are behind, what is due is claimed in the order in which it expires; see `rdservice.tokens.lease_sql`.
CREATE INDEX rdstation_tokens_expiry ON rdstation_tokens (expires_at) WHERE status <> 'reauthorization_required';
