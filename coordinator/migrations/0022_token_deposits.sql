-- Deposits that were paid in tokens: how many came in, and the rate that was in force when
-- they were entered, by which the entry's amount came about.
CREATE TABLE token_deposits (
    book TEXT NOT NULL CHECK (book IN ('test', 'live')),
    -- The entry's id.
    entry BLOB NOT NULL,
    micro_tokens INTEGER NOT NULL CHECK (micro_tokens > 0),
    rate INTEGER NOT NULL REFERENCES token_rates (from_ms),
    PRIMARY KEY (book, entry)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER token_deposits_are_not_changed BEFORE UPDATE ON token_deposits
BEGIN
    SELECT RAISE(ABORT, 'deposits are appended, never changed');
END;
CREATE TRIGGER token_deposits_are_not_deleted BEFORE DELETE ON token_deposits
BEGIN
    SELECT RAISE(ABORT, 'deposits are appended, never deleted');
END;
