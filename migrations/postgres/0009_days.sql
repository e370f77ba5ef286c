-- Deliveries that were closed and are open again, or that a replay made: whoever drops a day looks for them while it holds
-- the lock (`store/postgres/partitions.rs`). A delivery that succeeds at its first attempt is in neither index.
CREATE INDEX CONCURRENTLY queue_again_event ON queue (event) WHERE attempt > 0 OR replay IS NOT NULL;
-- step
CREATE INDEX CONCURRENTLY queue_again_delivery ON queue (delivery) WHERE attempt > 0 OR replay IS NOT NULL;
