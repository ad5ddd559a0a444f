-- Jobs that went back to a checkpoint because their loss diverged: which of its
-- setbacks it was (from 1), how many steps were done there, and which step diverged.
-- Every setback lowers the learning rate of the rounds after its `step`.
CREATE TABLE setbacks (
    job INTEGER NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL,
    step INTEGER NOT NULL,
    diverged_at INTEGER NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

ALTER TABLE jobs ADD COLUMN setbacks INTEGER NOT NULL DEFAULT 0;
