-- What commits add to `counters`: a row for each endpoint of a commit (endpoint 0: the account's events), appended and
-- never updated. The first node adds them to the row of shard -1 and deletes them: see `store/postgres/counters.rs`.
-- While a snapshot is held, old versions of a row that is updated stay, and every statement that looks for the row
-- walks them. Deltas that were folded stay too, and nobody walks them: readers and the fold begin after
-- `counters_folded_to`.
--
-- Never analysed: statistics of a moment in which the table was nearly empty would make a reader choose a sequential
-- scan.
CREATE TABLE counter_deltas (
  seq bigint GENERATED ALWAYS AS IDENTITY,
  account bigint NOT NULL,
  endpoint bigint NOT NULL,
  total bigint NOT NULL,
  last_delivery_at bigint
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 2147483647);
CREATE INDEX counter_deltas_seq ON counter_deltas (seq);
CREATE INDEX counter_deltas_endpoint ON counter_deltas (account, endpoint, seq);
INSERT INTO settings (name, value) VALUES ('counters_folded_to', 0);

-- Whether something of a line is due or leased is asked from a place on.
DROP INDEX queue_turn_taken;
CREATE INDEX queue_turn_taken ON queue (turn, place) WHERE turn IS NOT NULL AND (due_at IS NOT NULL OR lease IS NOT NULL);
