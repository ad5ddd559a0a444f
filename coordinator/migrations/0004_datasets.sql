-- Data sets that end. A deleted one keeps its row, without shards, while jobs
-- that have ended refer to it: their models are described by its facts.
ALTER TABLE datasets ADD COLUMN deleted_ms INTEGER;
-- RFC 3339 in UTC, so that texts compare as times do.
ALTER TABLE datasets ADD COLUMN expires_at TEXT;
CREATE INDEX datasets_by_end ON datasets (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_by_dataset ON jobs (dataset);
CREATE INDEX shards_by_blob ON shards (blob);

-- A job that is posted while its data set is deleted finds no shards to train on.
CREATE TRIGGER jobs_take_present_datasets BEFORE INSERT ON jobs
WHEN (SELECT deleted_ms FROM datasets WHERE id = NEW.dataset) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the data set was deleted');
END;

-- Files that arrive in pieces. The first `received` bytes are on the disk and
-- synced; what the file holds behind them is overwritten.
CREATE TABLE uploads (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL REFERENCES api_keys (id),
    bytes INTEGER NOT NULL,
    -- What the whole file must hash to, where the client said so.
    sha256 BLOB,
    received INTEGER NOT NULL DEFAULT 0,
    -- Set once all bytes are here and their hash is right.
    complete INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX uploads_by_owner ON uploads (owner, created_ms);
CREATE INDEX uploads_by_end ON uploads (expires_ms);
