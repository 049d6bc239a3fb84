-- Endpoints that are told of events: the last one that each was told of or is not to be, and what
-- is wrong with it. Nothing here says where an endpoint is.
CREATE TABLE outbox (
    name             TEXT PRIMARY KEY,
    cursor           INTEGER NOT NULL,
    failures         INTEGER NOT NULL DEFAULT 0,
    failing_since_us INTEGER,
    error_code       TEXT,
    error_message    TEXT,
    error_hint       TEXT,
    CHECK ((failures > 0) = (failing_since_us IS NOT NULL)),
    CHECK ((failures > 0) = (error_code IS NOT NULL AND error_message IS NOT NULL))
) STRICT, WITHOUT ROWID;
