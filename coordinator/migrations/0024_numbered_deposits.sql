-- Deposits in tokens are numbered, and SQLite keeps the last number that it gave, so that the
-- auditor finds that one is gone.
CREATE TABLE numbered_deposits (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    book TEXT NOT NULL CHECK (book IN ('test', 'live')),
    -- The entry's id.
    entry BLOB NOT NULL,
    micro_tokens INTEGER NOT NULL CHECK (micro_tokens > 0),
    rate INTEGER NOT NULL REFERENCES token_rates (from_ms),
    UNIQUE (book, entry)
) STRICT;
INSERT INTO numbered_deposits (book, entry, micro_tokens, rate)
    SELECT book, entry, micro_tokens, rate FROM token_deposits ORDER BY rate, book, entry;
DROP TABLE token_deposits;
ALTER TABLE numbered_deposits RENAME TO token_deposits;
CREATE TRIGGER token_deposits_are_not_changed BEFORE UPDATE ON token_deposits
BEGIN
    SELECT RAISE(ABORT, 'deposits are appended, never changed');
END;
CREATE TRIGGER token_deposits_are_not_deleted BEFORE DELETE ON token_deposits
BEGIN
    SELECT RAISE(ABORT, 'deposits are appended, never deleted');
END;
