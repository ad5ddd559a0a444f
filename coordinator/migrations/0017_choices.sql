-- The kinds of jobs that a session's visitor refuses: one bit for each category.
ALTER TABLE allocations ADD COLUMN refuses INTEGER NOT NULL DEFAULT 0;

-- The categories that a site's visitors get tasks of, where its owner names them: one
-- bit for each. All where there is nothing.
ALTER TABLE sites ADD COLUMN allowed_categories INTEGER;

-- Frames whose card was on a visitor's screen.
ALTER TABLE site_days ADD COLUMN shown INTEGER NOT NULL DEFAULT 0;
