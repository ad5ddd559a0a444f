-- What executed a credited task: cpu or gpu.
ALTER TABLE credits ADD COLUMN backend TEXT NOT NULL DEFAULT 'cpu';

-- A job's credited work by what executed it, so that summing it up needs no scan of the credits.
CREATE TABLE job_work (
    job INTEGER NOT NULL REFERENCES jobs (id),
    backend TEXT NOT NULL,
    tasks INTEGER NOT NULL,
    flops INTEGER NOT NULL,
    PRIMARY KEY (job, backend)
) STRICT, WITHOUT ROWID;
INSERT INTO job_work (job, backend, tasks, flops)
    SELECT id, 'cpu', tasks, flops FROM jobs WHERE tasks > 0;
