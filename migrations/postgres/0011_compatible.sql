-- The oldest program that may work on the database.
ALTER TABLE schema_version ADD COLUMN IF NOT EXISTS minimum bigint NOT NULL DEFAULT 0;
-- step
-- The node that a call is under way on; 0 where that is not known.
ALTER TABLE calls_in_flight ADD COLUMN IF NOT EXISTS node bigint NOT NULL DEFAULT 0;
-- step
-- Tells a change from another one of the same number, in a history that went on without the first.
ALTER TABLE changes ADD COLUMN IF NOT EXISTS nonce uuid;
ALTER TABLE changes ALTER COLUMN nonce SET DEFAULT gen_random_uuid();
