-- When the last call failed: a caller who asks for nothing older than some seconds is not told a failure from before.
ALTER TABLE rdstation_cache ADD COLUMN failed_at timestamptz;
