-- The planner's samples of encrypted values help nobody, and outlive the values themselves in pg_statistic, which a
-- dump may contain: those of plain tokens after their adoption, those under an old key after re-encryption. The same
-- type once more drops the samples that are there.
ALTER TABLE rdstation_tokens
    ALTER COLUMN access_token TYPE text, ALTER COLUMN access_token SET STATISTICS 0,
    ALTER COLUMN refresh_token TYPE text, ALTER COLUMN refresh_token SET STATISTICS 0;
ALTER TABLE rdstation_replaced_tokens
    ALTER COLUMN access_token TYPE text, ALTER COLUMN access_token SET STATISTICS 0,
    ALTER COLUMN refresh_token TYPE text, ALTER COLUMN refresh_token SET STATISTICS 0;
ALTER TABLE rdstation_cache
    ALTER COLUMN value TYPE text, ALTER COLUMN value SET STATISTICS 0;
