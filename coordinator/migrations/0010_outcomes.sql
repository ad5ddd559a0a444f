-- What became of results that contributors committed to, over all of them.
CREATE TABLE outcomes (
    outcome TEXT PRIMARY KEY NOT NULL,
    results INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
