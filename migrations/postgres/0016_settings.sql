-- What an endpoint's owner has set, as JSON: all but what has a column of its own (`store/settings.rs`).
ALTER TABLE endpoints ADD COLUMN IF NOT EXISTS settings text NOT NULL DEFAULT '{}';
