-- Who did what: `actor` and `resource` as the API names them. Entries of an account go with it; those of none are the
-- operator's.
CREATE TABLE audit_log (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id uuid NOT NULL,
  account bigint,
  action text NOT NULL,
  actor text NOT NULL,
  actor_id text,
  actor_name text,
  resource text NOT NULL,
  resource_id text NOT NULL,
  fields text NOT NULL,
  address text,
  request text,
  created_at bigint NOT NULL
);
CREATE INDEX audit_log_account ON audit_log (account, key);
CREATE INDEX audit_log_created ON audit_log (created_at);

-- How long the account's history is kept, in milliseconds, where it is not as long as the settings say. Bodies of events up
-- to `payloads_gone` are gone.
ALTER TABLE accounts ADD COLUMN retention_deliveries bigint;
ALTER TABLE accounts ADD COLUMN retention_payloads bigint;
ALTER TABLE accounts ADD COLUMN payloads_gone bigint NOT NULL DEFAULT 0;

-- 1: in the order of acceptance, one at a time. `turn` is the endpoint of a delivery that waits for its turn, or has it: one of
-- them is due or leased, and the others are neither. Places are given out in the order of the commits.
ALTER TABLE endpoints ADD COLUMN ordering smallint NOT NULL DEFAULT 0;
CREATE SEQUENCE turns AS bigint;
ALTER TABLE queue ADD COLUMN turn bigint;
ALTER TABLE queue ADD COLUMN place bigint;
CREATE INDEX queue_turn ON queue (turn, place, delivery) WHERE turn IS NOT NULL;
CREATE INDEX queue_turn_taken ON queue (turn) WHERE turn IS NOT NULL AND (due_at IS NOT NULL OR lease IS NOT NULL);
