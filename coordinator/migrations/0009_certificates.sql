-- Strict jobs: what their certificates are made of.

-- The state that the first round starts from, every how many rounds a state is
-- published, and why there is no certificate, where there can be none.
CREATE TABLE chains (
    job INTEGER PRIMARY KEY REFERENCES jobs (id),
    origin BLOB NOT NULL,
    stride INTEGER NOT NULL DEFAULT 1,
    refused TEXT
) STRICT;

-- One row for each round of the final history, by its number from 1: the state
-- after it, how many tasks were accepted and the hash of their digests, the
-- first micro-batches of replica tasks as little-endian u32, and the hash that
-- links the round to the one before.
CREATE TABLE links (
    job INTEGER NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    state BLOB NOT NULL,
    tasks INTEGER NOT NULL,
    tasks_digest BLOB,
    runs BLOB NOT NULL,
    link BLOB NOT NULL,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- States from which others may run rounds again. A row's blob is durable.
CREATE TABLE snapshots (
    job INTEGER NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    state BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_by_state ON snapshots (state);

CREATE TABLE certificates (
    job INTEGER PRIMARY KEY REFERENCES jobs (id),
    document TEXT NOT NULL
) STRICT;
