-- The head of the audit chain, signed now and then with a key that is not in this file.
CREATE TABLE audit_checkpoint (
    seq       INTEGER NOT NULL PRIMARY KEY,
    hash      BLOB    NOT NULL,
    at_s      INTEGER NOT NULL,
    key_id    TEXT    NOT NULL,          -- first 16 hexadecimal digits of SHA-256 of the public key
    signature BLOB    NOT NULL
) STRICT;

-- How often anything was taken away from a device; a restored database with fewer would give it back.
-- (instr, because json_extract may not be called from a trigger while the schema is not trusted.)
INSERT INTO meta (name, value) VALUES ('revocations', 0);

CREATE TRIGGER revoked_by_disabling AFTER UPDATE ON enrollment
    WHEN instr(NEW.record, '"provisioningStatus":"disabled"') AND NOT instr(OLD.record, '"provisioningStatus":"disabled"')
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'revocations';
END;

CREATE TRIGGER revoked_by_deleting AFTER DELETE ON enrollment
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'revocations';
END;

CREATE TRIGGER revoked_when_born AFTER INSERT ON enrollment
    WHEN instr(NEW.record, '"provisioningStatus":"disabled"')
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'revocations';
END;

CREATE TRIGGER revoked_by_list AFTER INSERT ON revoked_certificate
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'revocations';
END;
