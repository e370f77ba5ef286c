-- Times are milliseconds since the Unix epoch; `id` is what the outside sees, `key` a row's narrow name inside. What grows
-- with the work begins its key with the account, so that the rows of an account stand together. Rows of the four partitioned tables
-- live in the partition of the day in which their id was made: see `store/postgres/partitions.rs`.

CREATE TABLE settings (
  name text PRIMARY KEY,
  value bigint NOT NULL
);
INSERT INTO settings (name, value) VALUES ('generation', 0);

-- Servers. A delivery's lease is the key of its node; a node that is not heard of for long is removed.
CREATE TABLE nodes (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  delivers boolean NOT NULL,
  seen_at bigint NOT NULL
);

-- What the memory of other nodes must learn, numbered in the order of the commits: see `store/postgres/follow.rs`.
CREATE TABLE changes (
  generation bigint PRIMARY KEY,
  kind smallint NOT NULL,
  key bigint NOT NULL,
  id uuid,
  made_at bigint NOT NULL
);

-- Parts of ids that make them unique in their millisecond, given out in blocks.
CREATE SEQUENCE id_blocks AS bigint;

CREATE TABLE accounts (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id uuid NOT NULL UNIQUE,
  name text NOT NULL,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  deleted_at bigint
);

CREATE TABLE api_keys (
  id uuid PRIMARY KEY,
  account bigint,
  hash bytea NOT NULL UNIQUE,
  name text,
  permissions text NOT NULL,
  hint text NOT NULL,
  expires_at bigint,
  last_used_at bigint,
  created_at bigint NOT NULL
);
CREATE INDEX api_keys_account ON api_keys (account, created_at);

CREATE TABLE event_types (
  name text PRIMARY KEY,
  description text,
  schema text,
  example text,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL
);

-- A deleted endpoint stays as a tombstone until its history is purged in the background.
CREATE TABLE endpoints (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id uuid NOT NULL UNIQUE,
  account bigint NOT NULL,
  url text NOT NULL,
  events text NOT NULL,
  description text,
  status smallint NOT NULL DEFAULT 0,
  version bigint NOT NULL DEFAULT 1,
  consecutive_failures integer NOT NULL DEFAULT 0,
  failing_since bigint,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  deleted_at bigint
) WITH (fillfactor = 80);
CREATE INDEX endpoints_account ON endpoints (account, key);
CREATE INDEX endpoints_deleted ON endpoints (deleted_at) WHERE deleted_at IS NOT NULL;

-- `endpoints.events`, to be found by type.
CREATE TABLE subscriptions (
  account bigint NOT NULL,
  type text NOT NULL,
  endpoint bigint NOT NULL,
  PRIMARY KEY (account, type, endpoint)
);
CREATE INDEX subscriptions_endpoint ON subscriptions (endpoint);

-- The greatest `version` signs; the others sign beside it until they expire.
CREATE TABLE endpoint_secrets (
  endpoint bigint NOT NULL,
  version bigint NOT NULL,
  key_id text NOT NULL,
  sealed bytea NOT NULL,
  hint text NOT NULL,
  expires_at bigint,
  PRIMARY KEY (endpoint, version)
);

-- Rows of each endpoint, and of each account's events (endpoint 0): the sum over the shards. A writer counts in a shard of
-- its own, so that no two wait for each other.
CREATE TABLE counters (
  account bigint NOT NULL,
  endpoint bigint NOT NULL,
  shard smallint NOT NULL,
  total bigint NOT NULL,
  last_delivery_at bigint,
  PRIMARY KEY (account, endpoint, shard)
) WITH (fillfactor = 50);

-- `deliveries` has the ids of those that were made when the event was accepted.
CREATE TABLE events (
  account bigint NOT NULL,
  id bigint NOT NULL,
  type text NOT NULL,
  occurred_at bigint NOT NULL,
  validation_id uuid,
  deliveries bigint[] NOT NULL,
  PRIMARY KEY (account, id)
) PARTITION BY RANGE (id);

CREATE TABLE payloads (
  account bigint NOT NULL,
  event bigint NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (account, event)
) PARTITION BY RANGE (event);

-- `type` and `validation_id` are the event's.
CREATE TABLE deliveries (
  account bigint NOT NULL,
  id bigint NOT NULL,
  endpoint bigint NOT NULL,
  event bigint NOT NULL,
  type text NOT NULL,
  validation_id uuid,
  status smallint NOT NULL DEFAULT 0,
  attempt integer NOT NULL DEFAULT 0,
  started_at bigint,
  response_status integer,
  response_time_ms bigint,
  response_body text,
  error_message text,
  PRIMARY KEY (account, id)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, id);

-- Attempts before the latest, which is in the delivery's own row.
CREATE TABLE attempts (
  account bigint NOT NULL,
  delivery bigint NOT NULL,
  attempt integer NOT NULL,
  started_at bigint NOT NULL,
  response_status integer,
  response_time_ms bigint NOT NULL,
  response_body text,
  error_message text,
  PRIMARY KEY (account, delivery, attempt)
) PARTITION BY RANGE (delivery);

-- Deliveries that are open (status 0 or 1): each is either leased (lease) or waits for its time (due_at), never both.
CREATE TABLE queue (
  account bigint NOT NULL,
  delivery bigint NOT NULL,
  endpoint bigint NOT NULL,
  event bigint NOT NULL,
  size integer NOT NULL,
  attempt integer NOT NULL DEFAULT 0,
  failures integer NOT NULL DEFAULT 0,
  due_at bigint,
  lease bigint,
  PRIMARY KEY (account, delivery)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX queue_due ON queue (endpoint, due_at, delivery) WHERE due_at IS NOT NULL;
CREATE INDEX queue_leased ON queue (lease) WHERE lease IS NOT NULL;

-- `owner` is the account's id, or empty for an operator's key.
CREATE TABLE kept_answers (
  owner bytea NOT NULL,
  path text NOT NULL,
  key text NOT NULL,
  body_hash bytea NOT NULL,
  status integer NOT NULL,
  request_id text NOT NULL,
  answer bytea NOT NULL,
  created_at bigint NOT NULL,
  PRIMARY KEY (owner, path, key)
);
CREATE INDEX kept_answers_created ON kept_answers (created_at);

-- Calls with an idempotency key that are under way somewhere. After a crash there are none.
CREATE UNLOGGED TABLE calls_in_flight (
  owner bytea NOT NULL,
  path text NOT NULL,
  key text NOT NULL,
  holder uuid NOT NULL,
  expires_at bigint NOT NULL,
  PRIMARY KEY (owner, path, key)
);

-- The rate limits' windows, counted over all nodes. After a crash they begin anew.
CREATE UNLOGGED TABLE rate_windows (
  key uuid NOT NULL,
  bucket text NOT NULL,
  ends_at bigint NOT NULL,
  calls bigint NOT NULL,
  PRIMARY KEY (key, bucket)
) WITH (fillfactor = 50);
