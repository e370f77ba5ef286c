-- What an endpoint's owner has set, as JSON: all but what has a column of its own (`store/settings.rs`).
ALTER TABLE endpoints ADD COLUMN IF NOT EXISTS settings text NOT NULL DEFAULT '{}';
-- A client's own name for an endpoint.
ALTER TABLE endpoints ADD COLUMN IF NOT EXISTS external_id text;
-- step
CREATE UNIQUE INDEX CONCURRENTLY endpoints_external_id ON endpoints (account, external_id)
  WHERE external_id IS NOT NULL AND deleted_at IS NULL;
-- step
-- The same of an account, which the operator sets.
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS settings text NOT NULL DEFAULT '{}';
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS external_id text;
-- step
CREATE UNIQUE INDEX CONCURRENTLY accounts_external_id ON accounts (external_id)
  WHERE external_id IS NOT NULL AND deleted_at IS NULL;
