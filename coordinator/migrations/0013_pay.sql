-- What was put into a job's escrow after it was posted; `escrow` holds it as well.
ALTER TABLE jobs ADD COLUMN topped_up INTEGER NOT NULL DEFAULT 0;

-- Whether a round that was done again after a crash came to other weights than before.
ALTER TABLE rounds ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0;

-- For the entries of some days: the first of them is found by it.
CREATE INDEX entries_by_time ON entries (book, at_ms);
