-- Which origins were shown to be their site's own, and how. One that has lapsed
-- stays, so that its owner sees why it earns nothing.
CREATE TABLE site_origins (
    site INTEGER NOT NULL REFERENCES sites (id),
    origin TEXT NOT NULL,
    by TEXT NOT NULL CHECK (by IN ('file', 'dns')),
    proven_ms INTEGER NOT NULL,
    -- When it was looked at last, and how often in a row nothing was found.
    checked_ms INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    lapsed_ms INTEGER,
    PRIMARY KEY (site, origin)
) STRICT, WITHOUT ROWID;
-- An origin is one site's at a time.
CREATE UNIQUE INDEX site_origins_by_origin ON site_origins (origin) WHERE lapsed_ms IS NULL;
CREATE INDEX site_origins_by_check ON site_origins (checked_ms) WHERE lapsed_ms IS NULL;

ALTER TABLE sites ADD COLUMN paused_ms INTEGER;
-- One bit for each category of jobs.
ALTER TABLE sites ADD COLUMN refused_categories INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sites_by_owner ON sites (owner, created_ms);

-- The page's origin as far as it is known, why the session earns its site nothing
-- if that was clear from its start, and when its first result was credited.
ALTER TABLE sessions ADD COLUMN origin TEXT;
ALTER TABLE sessions ADD COLUMN withheld TEXT;
ALTER TABLE sessions ADD COLUMN worked_ms INTEGER;
-- What was credited of it, whoever earned by it.
ALTER TABLE sessions ADD COLUMN flops INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sessions_by_site ON sessions (site, opened_ms) WHERE site IS NOT NULL;
CREATE INDEX sessions_by_network ON sessions (site, network_prefix, opened_ms) WHERE site IS NOT NULL;
CREATE INDEX sessions_by_contributor ON sessions (contributor, opened_ms);

-- Whose ticket it is: the first key that came with it.
CREATE TABLE ticket_holders (
    ticket INTEGER PRIMARY KEY,
    contributor BLOB NOT NULL,
    used_ms INTEGER NOT NULL,
    -- Whether that was in another network than asked for the frame.
    elsewhere INTEGER NOT NULL
) STRICT;
CREATE INDEX ticket_holders_by_time ON ticket_holders (used_ms);

-- Frames that were served, and pages that were told that theirs stays dark. Days
-- are counted from 1970 in UTC.
CREATE TABLE site_days (
    site INTEGER NOT NULL REFERENCES sites (id),
    day INTEGER NOT NULL,
    views INTEGER NOT NULL DEFAULT 0,
    blocked INTEGER NOT NULL DEFAULT 0,
    -- What the work that earned cost: the sum over its networks, in pico-USD.
    pico_usd INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (site, day)
) STRICT, WITHOUT ROWID;

-- Credited work of a site's visitors, by whether it earned the site its share.
CREATE TABLE site_work (
    site INTEGER NOT NULL REFERENCES sites (id),
    day INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    tasks INTEGER NOT NULL,
    flops INTEGER NOT NULL,
    PRIMARY KEY (site, day, outcome)
) STRICT, WITHOUT ROWID;

-- What the work of each network cost, of which the site gets its share. Pico-USD.
CREATE TABLE site_networks (
    site INTEGER NOT NULL REFERENCES sites (id),
    day INTEGER NOT NULL,
    network_prefix BLOB NOT NULL,
    pico_usd INTEGER NOT NULL,
    PRIMARY KEY (site, day, network_prefix)
) STRICT, WITHOUT ROWID;

-- On which day an execution counts for the site of its session, and as what: so that it
-- does no more once it is void. Nothing where it came through no site.
ALTER TABLE credits ADD COLUMN day INTEGER;
ALTER TABLE credits ADD COLUMN outcome TEXT;
