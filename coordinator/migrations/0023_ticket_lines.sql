-- A ticket and those that it was renewed to have one number: the keys that have come with
-- one of them, of which there may be a few, and when each last did.
CREATE TABLE ticket_keys (
    ticket INTEGER NOT NULL,
    contributor BLOB NOT NULL,
    used_ms INTEGER NOT NULL,
    -- Whether its first use was in another network than asked for the frame.
    elsewhere INTEGER NOT NULL,
    PRIMARY KEY (ticket, contributor)
) STRICT, WITHOUT ROWID;
INSERT INTO ticket_keys SELECT ticket, contributor, used_ms, elsewhere FROM ticket_holders;
DROP TABLE ticket_holders;
CREATE INDEX ticket_keys_by_time ON ticket_keys (used_ms);
