-- Mflop of the tasks of jobs that have ended and of their executions, by book, mode and
-- owner: what jobs of that book are quoted with in that mode.
CREATE TABLE executions (
    book TEXT NOT NULL,
    mode TEXT NOT NULL,
    owner INTEGER NOT NULL,
    tasks INTEGER NOT NULL,
    executions INTEGER NOT NULL,
    PRIMARY KEY (book, mode, owner)
) STRICT, WITHOUT ROWID;

-- When each account of a contributor was looked at last, or its owner was seen then: what
-- nobody claims is found by it. New accounts are looked at once.
CREATE TABLE unclaimed_looks (
    account INTEGER PRIMARY KEY REFERENCES accounts (id),
    seen_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX unclaimed_looks_by_time ON unclaimed_looks (seen_ms);
INSERT INTO unclaimed_looks (account, seen_ms)
    SELECT id, 0 FROM accounts WHERE name >= 'contributor:' AND name < 'contributor;';
CREATE TRIGGER accounts_of_contributors_are_looked_at AFTER INSERT ON accounts
    WHEN new.name >= 'contributor:' AND new.name < 'contributor;'
BEGIN
    INSERT INTO unclaimed_looks (account, seen_ms) VALUES (new.id, 0);
END;

-- Whether what holds a withdrawal's money ends with its time. Older ones have no time in the books.
ALTER TABLE withdrawals ADD COLUMN hold_ends INTEGER NOT NULL DEFAULT 0;

-- What of a job's tasks and flops, which say what was ever credited, is void.
ALTER TABLE jobs ADD COLUMN void_tasks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN void_flops INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET void_tasks = v.tasks, void_flops = v.flops
    FROM (SELECT job, COUNT(*) AS tasks, CAST(TOTAL(flops) AS INTEGER) AS flops
        FROM credits WHERE void = 1 AND payer = 'job' GROUP BY job) v
    WHERE v.job = jobs.id;

-- Visitors of a site by day are counted without a look at their sessions themselves.
DROP INDEX sessions_by_site;
CREATE INDEX sessions_by_site ON sessions (site, opened_ms, contributor, worked_ms)
    WHERE site IS NOT NULL;
