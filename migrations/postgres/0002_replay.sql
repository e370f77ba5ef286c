-- Which replay made a delivery; null where it was made when its event was accepted.
ALTER TABLE deliveries ADD COLUMN replay bigint;
ALTER TABLE queue ADD COLUMN replay bigint;
CREATE INDEX deliveries_replayed ON deliveries (event, endpoint) WHERE replay IS NOT NULL;
CREATE INDEX queue_of_replay ON queue (replay) WHERE replay IS NOT NULL;

-- Jobs that make deliveries of events from `first` to `last`; those up to `position` have theirs.
CREATE TABLE replays (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id uuid NOT NULL UNIQUE,
  account bigint NOT NULL,
  endpoint bigint NOT NULL,
  selection smallint NOT NULL,
  status smallint NOT NULL,
  from_at bigint NOT NULL,
  to_at bigint NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  position bigint NOT NULL,
  total bigint NOT NULL,
  made bigint NOT NULL DEFAULT 0,
  created_at bigint NOT NULL,
  finished_at bigint
);
CREATE INDEX replays_endpoint ON replays (endpoint);
CREATE INDEX replays_finished ON replays (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX replays_open ON replays (endpoint, key) WHERE finished_at IS NULL;

-- Events that made no delivery to an endpoint which subscribed to them, because it was not active.
CREATE TABLE missed (
  account bigint NOT NULL,
  endpoint bigint NOT NULL,
  type text NOT NULL,
  event bigint NOT NULL,
  PRIMARY KEY (account, endpoint, type, event)
);
CREATE INDEX missed_event ON missed (event);
