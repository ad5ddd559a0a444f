-- What was put into a job's escrow after it was posted; `escrow` holds it as well.
ALTER TABLE jobs ADD COLUMN topped_up INTEGER NOT NULL DEFAULT 0;
