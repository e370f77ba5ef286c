-- People who sign in. An operator's user belongs to no account. An invitation, the first or one to set a new password, is kept as
-- its hash, and so are sessions and portal links.
CREATE TABLE users (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id uuid NOT NULL UNIQUE,
  account bigint,
  email text NOT NULL,
  role text NOT NULL,
  password text,
  factor_key_id text,
  factor_sealed bytea,
  factor_step bigint NOT NULL DEFAULT 0,
  invitation bytea UNIQUE,
  invited_until bigint,
  last_sign_in_at bigint,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL
);
CREATE INDEX users_account ON users (account, key);
CREATE UNIQUE INDEX users_email ON users (email, coalesce(account, 0));
-- Only who has joined has an address for themselves: an invitation takes it from nobody.
CREATE UNIQUE INDEX users_joined ON users (email) WHERE password IS NOT NULL;

CREATE TABLE sessions (
  token bytea PRIMARY KEY,
  owner bigint NOT NULL,
  seen_at bigint NOT NULL,
  expires_at bigint NOT NULL
);
CREATE INDEX sessions_owner ON sessions (owner);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE portal_links (
  token bytea PRIMARY KEY,
  id uuid NOT NULL,
  account bigint NOT NULL,
  permissions text NOT NULL,
  brand text,
  color text,
  frame_origins text NOT NULL,
  expires_at bigint NOT NULL
);
CREATE INDEX portal_links_account ON portal_links (account);
CREATE INDEX portal_links_expiry ON portal_links (expires_at);

-- Attempts, counted by what came of them and how long they took, in slots of several lengths.
CREATE TABLE attempt_counts (
  account bigint NOT NULL,
  length bigint NOT NULL,
  slot bigint NOT NULL,
  endpoint bigint NOT NULL,
  came bigint NOT NULL,
  class bigint NOT NULL,
  attempts bigint NOT NULL,
  PRIMARY KEY (account, length, slot, endpoint, came, class)
);
CREATE INDEX attempt_counts_old ON attempt_counts (length, slot);
