-- Contributors who gave what they have earned, and what still matures, to the site through which
-- they came: for good, since the key that signed it is usually erased afterwards.
CREATE TABLE gifts (
    contributor BLOB PRIMARY KEY,
    site INTEGER NOT NULL REFERENCES sites (id),
    given_ms INTEGER NOT NULL,
    statement TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
