-- Which replay made a delivery; null where it was made when its event was accepted.
ALTER TABLE deliveries ADD COLUMN replay INTEGER;
CREATE INDEX deliveries_replayed ON deliveries (event, endpoint) WHERE replay IS NOT NULL;
CREATE INDEX deliveries_of_replay ON deliveries (replay) WHERE replay IS NOT NULL AND status = 0;

-- Jobs that make deliveries of events from `first` to `last`; those up to `position` have theirs.
CREATE TABLE replays (
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  endpoint INTEGER NOT NULL,
  selection INTEGER NOT NULL,
  status INTEGER NOT NULL,
  from_at INTEGER NOT NULL,
  to_at INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  position INTEGER NOT NULL,
  total INTEGER NOT NULL,
  made INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  finished_at INTEGER
);
CREATE INDEX replays_endpoint ON replays (endpoint);
CREATE INDEX replays_finished ON replays (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX replays_open ON replays (endpoint, key) WHERE finished_at IS NULL;

-- Events that made no delivery to an endpoint which subscribed to them, because it was not active.
CREATE TABLE missed (
  endpoint INTEGER NOT NULL,
  type TEXT NOT NULL,
  event INTEGER NOT NULL,
  PRIMARY KEY (endpoint, type, event)
) WITHOUT ROWID;
CREATE INDEX missed_event ON missed (event);
