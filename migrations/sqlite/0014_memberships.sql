-- When somebody else turned off a user's second factor, until the user was told.
ALTER TABLE users ADD COLUMN factor_reset_at INTEGER;
-- One address may have a user in each of several accounts, every one with a password: users_email keeps it to one in each.
DROP INDEX users_joined;
-- A session among several that one sign-in opens, of which one is still to be chosen. It ends soon and shows no page.
ALTER TABLE sessions ADD COLUMN offered INTEGER NOT NULL DEFAULT 0;
