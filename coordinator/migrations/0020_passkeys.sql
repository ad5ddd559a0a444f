-- Passkeys of accounts. A credential is of one account for good, also after it was removed.
CREATE TABLE passkeys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES owners (id),
    credential BLOB NOT NULL UNIQUE,
    -- In COSE's form.
    public_key BLOB NOT NULL,
    -- How often it has signed, where it counts.
    count INTEGER NOT NULL,
    -- Whether it may be on several devices.
    synced INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    -- Days since 1970.
    used_day INTEGER,
    -- The key that asked for it; none did for the first one of an account that began with it.
    added_by INTEGER REFERENCES api_keys (id),
    removed_ms INTEGER
) STRICT;
CREATE INDEX passkeys_by_account ON passkeys (account);
CREATE INDEX passkeys_by_maker ON passkeys (added_by) WHERE added_by IS NOT NULL;

-- By what an account's passkeys say whose they are: no authenticator tells it to anybody else.
ALTER TABLE owners ADD COLUMN passkey_user BLOB;
-- The passkey that gave a key.
ALTER TABLE api_keys ADD COLUMN passkey INTEGER REFERENCES passkeys (id);
CREATE INDEX api_keys_by_passkey ON api_keys (passkey) WHERE passkey IS NOT NULL;
