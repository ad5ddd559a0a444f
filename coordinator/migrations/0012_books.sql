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

-- A hold ends once.
CREATE UNIQUE INDEX entries_by_hold ON entries (book, hold) WHERE hold IS NOT NULL;

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

-- Which money a key's jobs are paid with.
ALTER TABLE api_keys ADD COLUMN book TEXT NOT NULL DEFAULT 'test';
UPDATE api_keys SET book = 'live' WHERE hint LIKE 'rk_live_%';

-- What a job was given for its work, and how far its pay is. A job that was posted
-- before there were books has none and pays nothing.
ALTER TABLE jobs ADD COLUMN book TEXT;
ALTER TABLE jobs ADD COLUMN escrow INTEGER NOT NULL DEFAULT 0;
-- Hundredths of a charge's unit; it may pass 63 bits, so it is text.
ALTER TABLE jobs ADD COLUMN charged TEXT NOT NULL DEFAULT '0';
ALTER TABLE jobs ADD COLUMN statements INTEGER NOT NULL DEFAULT 0;

-- What each account has earned in a job: exactly, and what of it was paid or is held.
CREATE TABLE pay_lines (
    job INTEGER NOT NULL REFERENCES jobs (id),
    payer TEXT NOT NULL CHECK (payer IN ('job', 'operator')),
    reason TEXT NOT NULL,
    account TEXT NOT NULL,
    exact TEXT NOT NULL,
    paid INTEGER NOT NULL,
    PRIMARY KEY (job, payer, reason, account)
) STRICT, WITHOUT ROWID;

CREATE INDEX pay_lines_by_account ON pay_lines (job, account);

-- Rounds whose pay has not matured, and what is held for them.
CREATE TABLE pay_rounds (
    job INTEGER NOT NULL REFERENCES jobs (id),
    attempt INTEGER NOT NULL,
    round INTEGER NOT NULL,
    PRIMARY KEY (job, attempt, round)
) STRICT, WITHOUT ROWID;
CREATE TABLE pay_holds (
    id BLOB PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (id),
    attempt INTEGER NOT NULL,
    round INTEGER NOT NULL,
    payer TEXT NOT NULL,
    reason TEXT NOT NULL,
    account TEXT NOT NULL,
    amount INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pay_holds_by_job ON pay_holds (job, attempt, round);
