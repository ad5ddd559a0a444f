-- Receipts after a session's first: the visitor agreed to a higher share.
CREATE TABLE session_receipts (
    session INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    share REAL NOT NULL,
    receipt TEXT NOT NULL,
    signature TEXT NOT NULL,
    signed_ms INTEGER NOT NULL,
    PRIMARY KEY (session, counter)
) STRICT, WITHOUT ROWID;
