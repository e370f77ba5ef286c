-- What counts towards an endpoint's rate limit, as JSON: [[time, attempts], ...], in milliseconds of the database's clock, the
-- oldest first. Endpoints without a limit have no row. A row is locked and written by each claim: it is updated in its page.
CREATE TABLE IF NOT EXISTS limited_attempts (
    endpoint bigint PRIMARY KEY,
    attempts text NOT NULL
) WITH (fillfactor = 50);
