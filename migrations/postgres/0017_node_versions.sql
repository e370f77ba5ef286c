-- The version of each node's program; 0 is a program of before this migration. A row that older programs would ignore is not
-- written beside them (`store/postgres/migrate.rs`).
ALTER TABLE nodes ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 0;
