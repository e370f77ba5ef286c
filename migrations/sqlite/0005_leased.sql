-- Only what is not in memory is in the index that finds an endpoint's deliveries: most are leased when they are accepted, so they
-- come into it once, with their outcome, and not twice, each time into another page for another endpoint. What is in memory is
-- little, and found in the order in which it came.
DROP INDEX deliveries_endpoint;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, id, event, status, attempt, response_status, response_time_ms, lease)
  WHERE lease IS NULL;
DROP INDEX deliveries_leased;
CREATE INDEX deliveries_leased ON deliveries (id, endpoint) WHERE lease IS NOT NULL;
