-- When somebody else turned off a user's second factor, until the user was told.
ALTER TABLE users ADD COLUMN IF NOT EXISTS factor_reset_at bigint;
-- step
-- One address may have a user in each of several accounts, every one with a password: users_email keeps it to one in each.
DROP INDEX IF EXISTS users_joined;
-- step
-- A session among several that one sign-in opens, of which one is still to be chosen. It ends soon and shows no page.
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS offered boolean NOT NULL DEFAULT false;
