-- Times are milliseconds since the Unix epoch; `id` is what the outside sees, `key` a row's narrow name inside.

CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE accounts (
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL,
  events_total INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER
);

CREATE TABLE api_keys (
  id BLOB PRIMARY KEY,
  account INTEGER REFERENCES accounts (key),
  hash BLOB NOT NULL UNIQUE,
  name TEXT,
  permissions TEXT NOT NULL,
  hint TEXT NOT NULL,
  expires_at INTEGER,
  last_used_at INTEGER,
  created_at INTEGER NOT NULL
);
CREATE INDEX api_keys_account ON api_keys (account, created_at);

CREATE TABLE event_types (
  name TEXT PRIMARY KEY,
  description TEXT,
  schema TEXT,
  example TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) WITHOUT ROWID;

-- A deleted endpoint stays as a tombstone until its history is purged in the background.
CREATE TABLE endpoints (
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  account INTEGER NOT NULL REFERENCES accounts (key),
  url TEXT NOT NULL,
  events TEXT NOT NULL,
  description TEXT,
  status INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 1,
  consecutive_failures INTEGER NOT NULL DEFAULT 0,
  failing_since INTEGER,
  last_delivery_at INTEGER,
  deliveries_total INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER
);
CREATE INDEX endpoints_account ON endpoints (account, key);

-- The greatest `version` signs; the others sign beside it until they expire.
CREATE TABLE endpoint_secrets (
  endpoint INTEGER NOT NULL REFERENCES endpoints (key),
  version INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  sealed BLOB NOT NULL,
  hint TEXT NOT NULL,
  expires_at INTEGER,
  PRIMARY KEY (endpoint, version)
) WITHOUT ROWID;

CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  account INTEGER NOT NULL,
  type TEXT NOT NULL,
  occurred_at INTEGER NOT NULL,
  validation_id BLOB,
  deliveries INTEGER NOT NULL
);
CREATE INDEX events_account ON events (account, id);

CREATE TABLE payloads (
  event INTEGER PRIMARY KEY,
  body BLOB NOT NULL
);

-- An open delivery (status 0 or 1) is either leased (lease) or waits for its time (due_at), never both.
CREATE TABLE deliveries (
  id INTEGER PRIMARY KEY,
  endpoint INTEGER NOT NULL,
  event INTEGER NOT NULL,
  status INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  due_at INTEGER,
  lease INTEGER,
  started_at INTEGER,
  response_status INTEGER,
  response_time_ms INTEGER,
  response_body TEXT,
  error_message TEXT
);
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, id);
CREATE INDEX deliveries_due ON deliveries (endpoint, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_leased ON deliveries (id) WHERE lease IS NOT NULL;

-- Attempts before the latest, which is in the delivery's own row.
CREATE TABLE attempts (
  delivery INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  response_status INTEGER,
  response_time_ms INTEGER NOT NULL,
  response_body TEXT,
  error_message TEXT,
  PRIMARY KEY (delivery, attempt)
) WITHOUT ROWID;

-- `owner` is the account's id, or empty for an operator's key.
CREATE TABLE kept_answers (
  owner BLOB NOT NULL,
  path TEXT NOT NULL,
  key TEXT NOT NULL,
  body_hash BLOB NOT NULL,
  status INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  answer BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (owner, path, key)
) WITHOUT ROWID;
CREATE INDEX kept_answers_created ON kept_answers (created_at);
