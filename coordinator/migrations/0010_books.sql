-- The books (engine/LEDGER.md). `book` is 'test' for play money or 'live'.

-- What an account has, as its entries say. Nano-USD.
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    book TEXT NOT NULL CHECK (book IN ('test', 'live')),
    name TEXT NOT NULL,
    posted INTEGER NOT NULL,
    held_out INTEGER NOT NULL,
    held_in INTEGER NOT NULL,
    UNIQUE (book, name)
) STRICT;

-- One line for each entry, by its number from 1. `hash` is the chain's after it.
CREATE TABLE entries (
    book TEXT NOT NULL CHECK (book IN ('test', 'live')),
    number INTEGER NOT NULL,
    id BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    action TEXT NOT NULL,
    -- Of transfers.
    debit INTEGER REFERENCES accounts (id),
    credit INTEGER REFERENCES accounts (id),
    amount INTEGER CHECK (amount > 0),
    reason TEXT,
    expires_ms INTEGER,
    -- Of ends: the hold's id.
    hold BLOB,
    hash BLOB NOT NULL,
    PRIMARY KEY (book, number)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX entries_by_id ON entries (book, id);
-- For statements of one account.
CREATE INDEX entries_by_debit ON entries (debit, number) WHERE debit IS NOT NULL;
CREATE INDEX entries_by_credit ON entries (credit, number) WHERE credit IS NOT NULL;

CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
BEGIN
    SELECT RAISE(ABORT, 'entries are appended, never changed');
END;
CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entries
BEGIN
    SELECT RAISE(ABORT, 'entries are appended, never deleted');
END;

-- What became of each hold.
CREATE TABLE holds (
    book TEXT NOT NULL,
    id BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'posted', 'voided', 'expired')),
    PRIMARY KEY (book, id)
) STRICT, WITHOUT ROWID;
