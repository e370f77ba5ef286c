-- What nearly every commit changes of some endpoints has narrow rows of its own: a hundred and more of them share a page, and those
-- of `endpoints`, with their texts, are written when an endpoint is changed.
CREATE TABLE endpoint_counters (
  endpoint INTEGER PRIMARY KEY,
  deliveries_total INTEGER NOT NULL DEFAULT 0,
  last_delivery_at INTEGER,
  consecutive_failures INTEGER NOT NULL DEFAULT 0,
  failing_since INTEGER
);
INSERT INTO endpoint_counters SELECT key, deliveries_total, last_delivery_at, consecutive_failures, failing_since FROM endpoints;
ALTER TABLE endpoints DROP COLUMN deliveries_total;
ALTER TABLE endpoints DROP COLUMN last_delivery_at;
ALTER TABLE endpoints DROP COLUMN consecutive_failures;
ALTER TABLE endpoints DROP COLUMN failing_since;
