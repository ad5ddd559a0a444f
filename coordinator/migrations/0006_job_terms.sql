-- Why a job has ended, as programs read it.
ALTER TABLE jobs ADD COLUMN cause TEXT;
-- What its credited work has cost, exact: pico-USD times flops, of which 5 * 10^10 are
-- one nano-USD. It may pass 63 bits, so it is text.
ALTER TABLE jobs ADD COLUMN charge TEXT NOT NULL DEFAULT '0';
-- Pico-USD per calculation of the work.
ALTER TABLE credits ADD COLUMN rate INTEGER NOT NULL DEFAULT 0;

-- Random numbers that stand for this installation, e.g. as a contributor of its own.
CREATE TABLE identities (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
