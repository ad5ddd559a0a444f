-- Whose an execution's earning is: its contributor's, or that of the site in the same row.
ALTER TABLE credits ADD COLUMN beneficiary TEXT NOT NULL DEFAULT 'contributor'
    CHECK (beneficiary IN ('contributor', 'site'));
