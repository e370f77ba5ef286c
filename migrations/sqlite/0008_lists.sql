-- The list of an endpoint's deliveries, with what most filters look at, is a table of its own and is written for many deliveries
-- at once (`lists.rs`): an index of `deliveries` changed with each of them, for another endpoint in another page. Deliveries up to
-- `listed_to` are in it.
CREATE TABLE delivery_lists (
  endpoint INTEGER NOT NULL,
  id INTEGER NOT NULL,
  event INTEGER NOT NULL,
  status INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  response_status INTEGER,
  response_time_ms INTEGER,
  PRIMARY KEY (endpoint, id)
) WITHOUT ROWID;
-- In the order of the index that they were in, so that nothing is sorted; then the few that a server held when it was stopped.
INSERT INTO delivery_lists SELECT endpoint, id, event, status, attempt, response_status, response_time_ms
  FROM deliveries INDEXED BY deliveries_endpoint WHERE lease IS NULL ORDER BY endpoint, id;
INSERT INTO delivery_lists SELECT endpoint, id, event, status, attempt, response_status, response_time_ms
  FROM deliveries INDEXED BY deliveries_leased WHERE lease IS NOT NULL;
INSERT INTO settings (name, value) SELECT 'listed_to', IFNULL(MAX(id), 0) FROM deliveries;
DROP INDEX deliveries_endpoint;

-- Which of the listed ones are leased; of the others, their rows tell it. Only a server that starts asks.
CREATE TABLE listed_leases (
  id INTEGER PRIMARY KEY
);
INSERT INTO listed_leases SELECT id FROM deliveries INDEXED BY deliveries_leased WHERE lease IS NOT NULL;
DROP INDEX deliveries_leased;

CREATE TRIGGER delivery_gone AFTER DELETE ON deliveries BEGIN
  DELETE FROM delivery_lists WHERE endpoint = OLD.endpoint AND id = OLD.id;
  DELETE FROM listed_leases WHERE id = OLD.id;
END;

CREATE VIEW recent_deliveries AS
  SELECT * FROM deliveries WHERE id > (SELECT value FROM settings WHERE name = 'listed_to');
CREATE VIEW recent_totals AS
  SELECT endpoint, COUNT(*) AS deliveries, IFNULL(MAX(started_at), 0) AS last_at FROM recent_deliveries GROUP BY endpoint;
-- What is not listed yet is not counted yet either.
CREATE VIEW endpoint_totals AS
  SELECT c.endpoint, c.deliveries_total + IFNULL(r.deliveries, 0) AS deliveries_total,
    NULLIF(MAX(IFNULL(c.last_delivery_at, 0), IFNULL(r.last_at, 0)), 0) AS last_delivery_at,
    c.consecutive_failures, c.failing_since
  FROM endpoint_counters c LEFT JOIN recent_totals r ON r.endpoint = c.endpoint;
