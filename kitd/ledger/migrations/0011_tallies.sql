-- What happened so often since the ledger was made, whatever retention forgets of it: jobs by kind
-- and event, edges of mirrors by mirror and outcome, events that notifications were not told of.
CREATE TABLE tallies (
    subject TEXT NOT NULL,
    name    TEXT NOT NULL,
    outcome TEXT NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (subject, name, outcome)
) STRICT, WITHOUT ROWID;
-- Counted by lane at every scrape, and there may be as many as there are jobs.
CREATE INDEX jobs_scheduled_by_lane ON jobs (lane) WHERE state = 'scheduled';
