-- The values of an endpoint's headers and credentials as JSON, sealed with this master key (`store/credentials.rs`); null
-- where there are none.
ALTER TABLE endpoints ADD COLUMN IF NOT EXISTS credentials_key_id text;
ALTER TABLE endpoints ADD COLUMN IF NOT EXISTS credentials bytea;
