-- A device that moves keeps its identity at the hub that it left until it was seen at its new one, or for so many
-- seconds after it was made there. 0: nothing is waited for but the time in due_at_s.
ALTER TABLE retirement ADD COLUMN grace_s INTEGER NOT NULL DEFAULT 0;

CREATE INDEX retirement_by_registration ON retirement (lower(registration_id));
