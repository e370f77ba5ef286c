-- From first_id on, ids are ahead of the time: a clock was, which has been set right. The time of such an id is its own less
-- the offset.
CREATE TABLE id_offsets (
  first_id INTEGER PRIMARY KEY,
  offset_ms INTEGER NOT NULL
) STRICT;
