-- When somebody else turned off a user's second factor, until the user was told.
ALTER TABLE users ADD COLUMN factor_reset_at INTEGER;
