-- When work on the first round began.
ALTER TABLE jobs ADD COLUMN started_ms INTEGER;

-- Only losses over classes have samples that are classified rightly.
UPDATE rounds SET correct = NULL
    WHERE job IN (SELECT id FROM jobs WHERE json_extract(spec, '$.model.loss') = 'mse');
UPDATE evaluations SET correct = NULL
    WHERE job IN (SELECT id FROM jobs WHERE json_extract(spec, '$.model.loss') = 'mse');

-- Placement master: which slices of a job's weights a contributor was shown. A row
-- is durable before anything of the slice is sent.
CREATE TABLE slices_shown (
    job INTEGER NOT NULL REFERENCES jobs (id),
    contributor BLOB NOT NULL,
    slice INTEGER NOT NULL,
    PRIMARY KEY (job, contributor, slice)
) STRICT, WITHOUT ROWID;

-- Answers to requests that named themselves by an Idempotency-Key. Hashes and
-- digests are BLAKE3. A row is written in the transaction of what it answers for.
CREATE TABLE idempotency (
    owner INTEGER NOT NULL REFERENCES api_keys (id),
    key_hash BLOB NOT NULL,
    route TEXT NOT NULL,
    body BLOB NOT NULL,
    status INTEGER NOT NULL,
    answer TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (owner, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
