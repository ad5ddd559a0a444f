-- Which sites' cards got a view, and when last, to ten minutes. Each site has so many: of those
-- that no session has named its oldest go first, whatever is shown at others.
CREATE TABLE card_views_of_sites (
    site INTEGER NOT NULL,
    view BLOB NOT NULL,
    given_ms INTEGER NOT NULL,
    PRIMARY KEY (site, view)
) STRICT, WITHOUT ROWID;
CREATE INDEX card_views_of_sites_by_time ON card_views_of_sites (site, given_ms);
CREATE INDEX card_views_of_sites_by_view ON card_views_of_sites (view, given_ms);
