-- Signing keys are files of their own now, so that a copy of the database holds none.
DROP TABLE secrets;

-- Which jobs a damaged shard belongs to, and whether a blob is still referred to.
CREATE INDEX checkpoints_by_weights ON checkpoints (weights);
