-- When a portal link was first opened; null until then.
ALTER TABLE portal_links ADD COLUMN opened_at INTEGER;
