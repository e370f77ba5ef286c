-- Who did what: `actor` and `resource` as the API names them. Entries of an account go with it; those of none are the
-- operator's.
CREATE TABLE audit_log (
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL,
  account INTEGER,
  action TEXT NOT NULL,
  actor TEXT NOT NULL,
  actor_id TEXT,
  actor_name TEXT,
  resource TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  fields TEXT NOT NULL,
  address TEXT,
  request TEXT,
  created_at INTEGER NOT NULL
);
CREATE INDEX audit_log_account ON audit_log (account, key);
CREATE INDEX audit_log_created ON audit_log (created_at);

-- How long the account's history is kept, in milliseconds, where it is not as long as the settings say. Bodies of events up
-- to `payloads_gone` are gone.
ALTER TABLE accounts ADD COLUMN retention_deliveries INTEGER;
ALTER TABLE accounts ADD COLUMN retention_payloads INTEGER;
ALTER TABLE accounts ADD COLUMN payloads_gone INTEGER NOT NULL DEFAULT 0;

-- 1: in the order of acceptance, one at a time. `turn` is the endpoint of a delivery that waits for its turn, or has it: one of
-- them is due or leased, and the others are neither.
ALTER TABLE endpoints ADD COLUMN ordering INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN turn INTEGER;
CREATE INDEX deliveries_turn ON deliveries (turn, id) WHERE turn IS NOT NULL;
CREATE INDEX deliveries_turn_taken ON deliveries (turn) WHERE turn IS NOT NULL AND (due_at IS NOT NULL OR lease IS NOT NULL);

-- What most filters look at is in the index that finds an endpoint's deliveries: a filter reads no row that it does not show.
DROP INDEX deliveries_endpoint;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, id, event, status, attempt, response_status, response_time_ms);
