-- Contributors whose earnings go to an account, from when on and until when; one account of
-- each kind of money at a time. The statement is signed by the contributor, and each links
-- once: whoever was unlinked signs another one, with another nonce.
CREATE TABLE account_links (
    id INTEGER PRIMARY KEY,
    contributor BLOB NOT NULL,
    book TEXT NOT NULL CHECK (book IN ('test', 'live')),
    account INTEGER NOT NULL REFERENCES owners (id),
    linked_ms INTEGER NOT NULL,
    unlinked_ms INTEGER,
    statement TEXT NOT NULL UNIQUE,
    signature TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX account_links_that_hold ON account_links (contributor, book)
    WHERE unlinked_ms IS NULL;
CREATE INDEX account_links_by_account ON account_links (account, linked_ms);
-- Nonces of statements whose time is not over, also of those that found the link that they ask
-- for: none of them links again once that was ended.
CREATE TABLE link_nonces (
    contributor BLOB NOT NULL,
    nonce BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (contributor, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX link_nonces_by_end ON link_nonces (expires_ms);
