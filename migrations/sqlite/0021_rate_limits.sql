-- What counts towards an endpoint's rate limit, as JSON: [[time, attempts], ...], in milliseconds, the oldest first. Endpoints
-- without a limit have no row.
CREATE TABLE limited_attempts (
    endpoint INTEGER PRIMARY KEY,
    attempts TEXT NOT NULL
);
