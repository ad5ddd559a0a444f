-- Signing keys are files of their own now, so that a copy of the database holds none.
DROP TABLE secrets;

-- Which jobs a damaged shard belongs to, and whether a blob is still referred to.
CREATE INDEX shards_by_blob ON shards (blob);
CREATE INDEX checkpoints_by_weights ON checkpoints (weights);
CREATE INDEX jobs_by_dataset ON jobs (dataset);
