-- Several contributors are paid for one task, and again where a job went back.
CREATE TABLE credits_by_execution (
    job INTEGER NOT NULL REFERENCES jobs (id),
    round INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    part INTEGER NOT NULL,
    -- How often the job had gone back.
    attempt INTEGER NOT NULL,
    contributor BLOB NOT NULL,
    session INTEGER NOT NULL,
    site INTEGER,
    flops INTEGER NOT NULL,
    digest BLOB NOT NULL,
    rate INTEGER NOT NULL,
    backend TEXT NOT NULL,
    -- Why the result was believed: unchecked, single, agreed, refereed.
    proof TEXT NOT NULL,
    -- Who pays: the job, or the operator where the job has paid for the round once.
    payer TEXT NOT NULL,
    -- Whether it earns nothing after all.
    void INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, round, stage, part, attempt, contributor)
) STRICT, WITHOUT ROWID;
INSERT INTO credits_by_execution
    (job, round, stage, part, attempt, contributor, session, site, flops, digest, rate, backend,
     proof, payer)
    SELECT job, round, stage, part, 0, contributor, session, site, flops, digest, rate, backend,
        'unchecked', 'job' FROM credits;
DROP TABLE credits;
ALTER TABLE credits_by_execution RENAME TO credits;

-- How often a job went back, and the rounds that it has paid for however far it went.
ALTER TABLE jobs ADD COLUMN rollbacks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN rounds_paid INTEGER NOT NULL DEFAULT 0;

-- What is known of those who compute: results that were computed a second time
-- and right, or a proven lie. A lie of a processor excludes its contributor everywhere.
CREATE TABLE trust (
    contributor BLOB NOT NULL,
    device TEXT NOT NULL,
    backend TEXT NOT NULL,
    agreed INTEGER NOT NULL,
    -- Of those, the ones that the coordinator computed itself.
    refereed INTEGER NOT NULL,
    excluded INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (contributor, device, backend)
) STRICT, WITHOUT ROWID;

-- Proven lies. The file of the same name in the folder of evidence can be replayed.
CREATE TABLE evidence (
    id TEXT PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (id),
    round INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    part INTEGER NOT NULL,
    contributor BLOB NOT NULL,
    -- What was found, for people: it names the operation where that is known.
    finding TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX evidence_by_job ON evidence (job, at_ms);
