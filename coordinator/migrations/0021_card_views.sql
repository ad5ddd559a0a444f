-- What cards showed before anybody agreed, known by its content. A receipt names the one that
-- its visitor saw; those that a session has named are kept with it, others go when nobody can
-- name them any more.
CREATE TABLE card_views (
    id BLOB PRIMARY KEY,
    document TEXT NOT NULL,
    -- When it was last given to a card, to the hour.
    given_ms INTEGER NOT NULL,
    named INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX card_views_that_nobody_named ON card_views (given_ms) WHERE named = 0;
