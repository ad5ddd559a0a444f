-- Contributors whose earnings go to an account, from when on and until when; one account of
-- each kind of money at a time. The statement is signed by the contributor, and each links
-- once: whoever was unlinked signs another one.
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
