-- What an endpoint's owner has set, as JSON: all but what has a column of its own (`store/settings.rs`).
ALTER TABLE endpoints ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
-- A client's own name for an endpoint.
ALTER TABLE endpoints ADD COLUMN external_id TEXT;
CREATE UNIQUE INDEX endpoints_external_id ON endpoints (account, external_id)
  WHERE external_id IS NOT NULL AND deleted_at IS NULL;
-- The same of an account, which the operator sets.
ALTER TABLE accounts ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE accounts ADD COLUMN external_id TEXT;
CREATE UNIQUE INDEX accounts_external_id ON accounts (external_id)
  WHERE external_id IS NOT NULL AND deleted_at IS NULL;
