-- Whose an execution's earning is: its contributor's, that of the site in the same row, or the
-- reserve's where it was left to a site that did not earn by it.
ALTER TABLE credits ADD COLUMN beneficiary TEXT NOT NULL DEFAULT 'contributor'
    CHECK (beneficiary IN ('contributor', 'site', 'reserve'));

-- What each session was given of its contributor's machine, and every change of that, as a
-- chain of hashes: one line for each, by its number from 1. A line is there before what it
-- says takes effect.
CREATE TABLE allocations (
    number INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    contributor BLOB NOT NULL,
    session INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('consent', 'raise', 'change', 'revoke', 'end')),
    -- Millionths of the machine.
    share_ppm INTEGER NOT NULL,
    cpu INTEGER NOT NULL,
    gpu INTEGER NOT NULL,
    workers INTEGER NOT NULL,
    -- The blake3 of the signed text, where it took one.
    receipt BLOB,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX allocations_by_contributor ON allocations (contributor, number);

CREATE TRIGGER allocations_are_not_changed BEFORE UPDATE ON allocations
BEGIN
    SELECT RAISE(ABORT, 'allocations are appended, never changed');
END;
CREATE TRIGGER allocations_are_not_deleted BEFORE DELETE ON allocations
BEGIN
    SELECT RAISE(ABORT, 'allocations are appended, never deleted');
END;

-- The number of a session's newest line; nothing for sessions from before there were lines.
ALTER TABLE sessions ADD COLUMN allocation INTEGER;

-- What became of results, by contributor.
CREATE TABLE contributor_outcomes (
    contributor BLOB NOT NULL,
    outcome TEXT NOT NULL,
    results INTEGER NOT NULL,
    PRIMARY KEY (contributor, outcome)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_contributors_by_contributor ON job_contributors (contributor);

-- Keys that have proven themselves over HTTP: wallets, and contributors that look at their own.
CREATE TABLE contributors (
    key BLOB PRIMARY KEY,
    seen_ms INTEGER NOT NULL,
    -- Where its owner wants to be paid, and from how much on. Nano-USD.
    payout_address TEXT,
    payout_threshold INTEGER
) STRICT, WITHOUT ROWID;

-- Whose earnings are collected by whom: once for ever. The statement is signed by the contributor.
CREATE TABLE wallet_links (
    contributor BLOB PRIMARY KEY,
    wallet BLOB NOT NULL,
    linked_ms INTEGER NOT NULL,
    statement TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX wallet_links_by_wallet ON wallet_links (wallet, linked_ms);
