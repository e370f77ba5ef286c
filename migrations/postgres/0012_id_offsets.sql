-- Only an import writes here: ids of this database follow its clock. See SQLite's twin.
CREATE TABLE IF NOT EXISTS id_offsets (
  first_id bigint PRIMARY KEY,
  offset_ms bigint NOT NULL
);
