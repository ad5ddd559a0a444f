-- Accounts and their keys. An account is known by the number of its first key, to
-- which every `owner` refers already; that row stays when the key is revoked.
ALTER TABLE api_keys ADD COLUMN account INTEGER REFERENCES api_keys (id);
UPDATE api_keys SET account = id;
ALTER TABLE api_keys ADD COLUMN name TEXT NOT NULL DEFAULT '';
-- Names of scopes, with spaces between.
ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT 'jobs datasets sites account keys';
ALTER TABLE api_keys ADD COLUMN expires_ms INTEGER;
-- Days since 1970: when a key was last used is told to the day.
ALTER TABLE api_keys ADD COLUMN used_day INTEGER;
CREATE INDEX api_keys_by_account ON api_keys (account);

CREATE TABLE owners (
    id INTEGER PRIMARY KEY REFERENCES api_keys (id),
    name TEXT NOT NULL DEFAULT '',
    created_ms INTEGER NOT NULL
) STRICT;
INSERT INTO owners (id, created_ms) SELECT id, created_ms FROM api_keys;
-- Of the code that gives an account back to whoever has lost its keys.
ALTER TABLE owners ADD COLUMN recovery_hash BLOB;
CREATE UNIQUE INDEX owners_by_recovery ON owners (recovery_hash) WHERE recovery_hash IS NOT NULL;
-- As it was given; one address, one account, however it is spelled.
ALTER TABLE owners ADD COLUMN email TEXT COLLATE NOCASE;
CREATE UNIQUE INDEX owners_by_email ON owners (email) WHERE email IS NOT NULL;

-- Links that were sent to people who want an account. Each is good for once.
CREATE TABLE sign_ups (
    token_hash BLOB PRIMARY KEY,
    email TEXT NOT NULL COLLATE NOCASE,
    book TEXT NOT NULL CHECK (book IN ('test', 'live')),
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_ups_by_email ON sign_ups (email);

-- Sub-accounts, one level deep. `external_id` is what the parent knows one by.
ALTER TABLE owners ADD COLUMN parent INTEGER REFERENCES owners (id);
ALTER TABLE owners ADD COLUMN external_id TEXT;
ALTER TABLE owners ADD COLUMN closed_ms INTEGER;
CREATE UNIQUE INDEX owners_by_external_id ON owners (parent, external_id)
    WHERE external_id IS NOT NULL;
CREATE INDEX owners_by_parent ON owners (parent, id) WHERE parent IS NOT NULL;

-- Money that is asked to go out. Where it stands is what became of its hold.
CREATE TABLE withdrawals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    book TEXT NOT NULL,
    account TEXT NOT NULL,
    reference TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    address TEXT NOT NULL,
    -- The entry that holds the money.
    hold BLOB NOT NULL,
    requested_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    decided_ms INTEGER,
    note TEXT,
    UNIQUE (book, hold),
    UNIQUE (book, account, reference)
) STRICT;
CREATE INDEX withdrawals_by_account ON withdrawals (book, account, id);

-- What a token is worth, from when on.
CREATE TABLE token_rates (
    from_ms INTEGER PRIMARY KEY,
    nano_usd INTEGER NOT NULL CHECK (nano_usd > 0)
) STRICT;
CREATE TRIGGER token_rates_are_not_changed BEFORE UPDATE ON token_rates
BEGIN
    SELECT RAISE(ABORT, 'rates are appended, never changed');
END;
CREATE TRIGGER token_rates_are_not_deleted BEFORE DELETE ON token_rates
BEGIN
    SELECT RAISE(ABORT, 'rates are appended, never deleted');
END;

-- The rate of a withdrawal that is to be paid in tokens, as it was when it was asked for.
ALTER TABLE withdrawals ADD COLUMN token_from_ms INTEGER;
ALTER TABLE withdrawals ADD COLUMN token_nano_usd INTEGER;
