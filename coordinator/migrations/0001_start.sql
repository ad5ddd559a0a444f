-- Times are milliseconds since 1970, UTC. 64-bit ids and flops are stored as the
-- signed number with the same bits. Hashes are 32 raw bytes. Epochs count from 1.

CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    hint TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;

CREATE TABLE sites (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL REFERENCES api_keys (id),
    name TEXT NOT NULL,
    site_key TEXT NOT NULL UNIQUE,
    origins TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;

CREATE TABLE datasets (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL REFERENCES api_keys (id),
    name TEXT NOT NULL,
    facts TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX datasets_by_owner ON datasets (owner, created_ms);

CREATE TABLE shards (
    dataset INTEGER NOT NULL REFERENCES datasets (id),
    part TEXT NOT NULL CHECK (part IN ('train', 'test')),
    first_row INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    blob BLOB NOT NULL,
    PRIMARY KEY (dataset, part, first_row)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL REFERENCES api_keys (id),
    dataset INTEGER NOT NULL REFERENCES datasets (id),
    name TEXT NOT NULL,
    listed INTEGER NOT NULL,
    spec TEXT NOT NULL,
    facts TEXT NOT NULL,
    kernel BLOB NOT NULL,
    phase TEXT NOT NULL,
    reason TEXT,
    step INTEGER NOT NULL DEFAULT 0,
    epochs_done INTEGER NOT NULL DEFAULT 0,
    tasks INTEGER NOT NULL DEFAULT 0,
    flops INTEGER NOT NULL DEFAULT 0,
    -- Time spent on rounds: of all processes, and of those before this one.
    train_ms INTEGER NOT NULL DEFAULT 0,
    train_before_ms INTEGER NOT NULL DEFAULT 0,
    -- When this process last stored a round or evaluation of it; cleared at a start.
    last_record_ms INTEGER,
    model_sha256 TEXT,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE INDEX jobs_by_owner ON jobs (owner, created_ms);
CREATE INDEX jobs_by_phase ON jobs (phase);

-- One row for each optimizer step. A sum that is not a number is NULL.
CREATE TABLE rounds (
    job INTEGER NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    loss_sum REAL,
    correct REAL,
    count REAL,
    learning_rate REAL,
    contributors INTEGER NOT NULL,
    weights BLOB,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- One row for each measurement on the held-out rows.
CREATE TABLE evaluations (
    job INTEGER NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    loss_sum REAL,
    correct REAL,
    count REAL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- A task is credited once, whoever is first: the key is the idempotency id.
CREATE TABLE credits (
    job INTEGER NOT NULL REFERENCES jobs (id),
    round INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    part INTEGER NOT NULL,
    contributor BLOB NOT NULL,
    session INTEGER NOT NULL,
    site INTEGER,
    flops INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (job, round, stage, part)
) STRICT, WITHOUT ROWID;

-- Who has done something for a job, so that counting them needs no scan of the credits.
CREATE TABLE job_contributors (
    job INTEGER NOT NULL REFERENCES jobs (id),
    contributor BLOB NOT NULL,
    tasks INTEGER NOT NULL,
    flops INTEGER NOT NULL,
    PRIMARY KEY (job, contributor)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    job INTEGER NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    weights BLOB NOT NULL,
    best INTEGER NOT NULL,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: an id is never used again, so a reader that resumes misses nothing.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job, id);

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    contributor BLOB NOT NULL,
    site INTEGER,
    network_prefix BLOB NOT NULL,
    device_class TEXT NOT NULL,
    device TEXT NOT NULL,
    numeric_class TEXT NOT NULL,
    share REAL NOT NULL,
    workers INTEGER NOT NULL,
    receipt TEXT NOT NULL,
    signature TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    closed_ms INTEGER,
    closed_reason TEXT
) STRICT;

-- One row. Sums over all jobs, kept beside the credits in the same transactions.
-- Their flops would pass 63 bits: calculations are 50 Mflop each, the rest is less than one.
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    tasks INTEGER NOT NULL,
    calculations INTEGER NOT NULL,
    flops_rest INTEGER NOT NULL
) STRICT;
INSERT INTO totals (id, tasks, calculations, flops_rest) VALUES (1, 0, 0, 0);
