-- The passkey that agreed to another one. Until now having signed in with one was enough.
ALTER TABLE passkeys ADD COLUMN confirmed_by INTEGER REFERENCES passkeys (id);
CREATE INDEX passkeys_by_confirmation ON passkeys (confirmed_by) WHERE confirmed_by IS NOT NULL;
UPDATE passkeys SET confirmed_by = k.passkey FROM api_keys k
    WHERE k.id = passkeys.added_by AND k.expires_ms IS NOT NULL;
