-- The row's id, which is the event's, is the last column of every index as it is: named as one, it was in each entry twice.
DROP INDEX events_account;
CREATE INDEX events_account ON events (account);
