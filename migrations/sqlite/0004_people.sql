-- People who sign in. An operator's user belongs to no account. An invitation, the first or one to set a new password, is kept as
-- its hash, and so are sessions and portal links.
CREATE TABLE users (
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  account INTEGER REFERENCES accounts (key),
  email TEXT NOT NULL,
  role TEXT NOT NULL,
  password TEXT,
  factor_key_id TEXT,
  factor_sealed BLOB,
  factor_step INTEGER NOT NULL DEFAULT 0,
  invitation BLOB UNIQUE,
  invited_until INTEGER,
  last_sign_in_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
);
CREATE INDEX users_account ON users (account, key);
CREATE UNIQUE INDEX users_email ON users (email, coalesce(account, 0));
-- Only who has joined has an address for themselves: an invitation takes it from nobody.
CREATE UNIQUE INDEX users_joined ON users (email) WHERE password IS NOT NULL;

CREATE TABLE sessions (
  token BLOB PRIMARY KEY,
  owner INTEGER NOT NULL REFERENCES users (key),
  seen_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_owner ON sessions (owner);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE portal_links (
  token BLOB PRIMARY KEY,
  id BLOB NOT NULL,
  account INTEGER NOT NULL REFERENCES accounts (key),
  permissions TEXT NOT NULL,
  brand TEXT,
  color TEXT,
  frame_origins TEXT NOT NULL,
  expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX portal_links_account ON portal_links (account);
CREATE INDEX portal_links_expiry ON portal_links (expires_at);

-- Attempts, counted by what came of them and how long they took, in slots of several lengths.
CREATE TABLE attempt_counts (
  account INTEGER NOT NULL,
  length INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  endpoint INTEGER NOT NULL,
  came INTEGER NOT NULL,
  class INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  PRIMARY KEY (account, length, slot, endpoint, came, class)
) WITHOUT ROWID;
CREATE INDEX attempt_counts_old ON attempt_counts (length, slot);
