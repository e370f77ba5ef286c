-- The channels that an event carries, separated by spaces; null where there are none.
ALTER TABLE events ADD COLUMN IF NOT EXISTS channels text;
