-- Times are integers, seconds since 1970 (UTC), and only help to search: the record has them exactly.
-- Records are JSON; the columns beside them are what is looked up or compared. A digest covers key and record
-- (rows.py), so that a flipped bit is noticed when the row is read.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY  NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES
    ('digest_key', randomblob(32)),  -- finds accidents, not attackers: whoever can write the file can read it
    ('opened', 0),                   -- the write probe of every start
    ('access', 1),                   -- bumped when an enrollment changes or a registration goes: sessions rest on them
    ('generation', 1);               -- bumped when a group changes: what a process remembers of groups is then void

CREATE TABLE enrollment (
    id               INTEGER PRIMARY KEY,
    key              TEXT NOT NULL,
    kind             TEXT NOT NULL CHECK (kind IN ('individual', 'group')),
    attestation_type TEXT NOT NULL,
    etag             TEXT NOT NULL,
    record           TEXT NOT NULL,
    digest           TEXT NOT NULL,
    UNIQUE (key, kind)
) STRICT;

CREATE INDEX enrollment_group ON enrollment (key) WHERE kind = 'group';

-- The CA certificates of the groups, by the SHA-256 of their subject Name.
CREATE TABLE enrollment_certificate (
    subject_hash TEXT    NOT NULL,
    enrollment   INTEGER NOT NULL REFERENCES enrollment (id) ON DELETE CASCADE,
    PRIMARY KEY (subject_hash, enrollment)
) STRICT, WITHOUT ROWID;

CREATE INDEX enrollment_certificate_owner ON enrollment_certificate (enrollment);

CREATE TRIGGER group_created AFTER INSERT ON enrollment WHEN NEW.kind = 'group'
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'generation';
END;

CREATE TRIGGER group_updated AFTER UPDATE ON enrollment WHEN NEW.kind = 'group' OR OLD.kind = 'group'
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'generation';
END;

CREATE TRIGGER group_deleted AFTER DELETE ON enrollment WHEN OLD.kind = 'group'
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'generation';
END;

CREATE TABLE registration (
    id        INTEGER PRIMARY KEY,
    key       TEXT    NOT NULL UNIQUE,
    version   INTEGER NOT NULL,
    status    TEXT    NOT NULL,
    substatus TEXT,
    hub       TEXT,
    group_key TEXT,                  -- NULL: let in by the individual enrollment, whose key is this row's key
    endorsement_key_hash TEXT,       -- NULL: not a TPM
    device_key TEXT  NOT NULL,       -- lower-case device id, by which a hub knows it
    record    TEXT    NOT NULL,
    digest    TEXT    NOT NULL
) STRICT;

CREATE INDEX registration_by_group ON registration (group_key, key) WHERE group_key IS NOT NULL;

CREATE INDEX registration_by_endorsement_key ON registration (endorsement_key_hash)
    WHERE endorsement_key_hash IS NOT NULL;

-- Should two registrations have one device id, it is the older one's.
CREATE INDEX registration_by_device ON registration (device_key, id);

-- Few at any time, and among them the work queue: the rows that are being assigned.
CREATE INDEX registration_unsettled ON registration (status, key) WHERE status <> 'assigned';

-- Counting a million rows takes too long for a metric; these are kept up as they change.
CREATE TABLE registration_count (
    status TEXT    NOT NULL,
    hub    TEXT    NOT NULL,
    total  INTEGER NOT NULL,
    PRIMARY KEY (status, hub)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER registration_created AFTER INSERT ON registration
BEGIN
    INSERT INTO registration_count (status, hub, total) VALUES (NEW.status, coalesce(NEW.hub, ''), 1)
        ON CONFLICT (status, hub) DO UPDATE SET total = total + 1;
END;

CREATE TRIGGER registration_moved AFTER UPDATE OF status, hub ON registration
    WHEN OLD.status IS NOT NEW.status OR OLD.hub IS NOT NEW.hub
BEGIN
    UPDATE registration_count SET total = total - 1 WHERE status = OLD.status AND hub = coalesce(OLD.hub, '');
    INSERT INTO registration_count (status, hub, total) VALUES (NEW.status, coalesce(NEW.hub, ''), 1)
        ON CONFLICT (status, hub) DO UPDATE SET total = total + 1;
END;

CREATE TRIGGER registration_deleted AFTER DELETE ON registration
BEGIN
    UPDATE registration_count SET total = total - 1 WHERE status = OLD.status AND hub = coalesce(OLD.hub, '');
END;

-- What the embedded hub has of a device, by its lower-case id.
CREATE TABLE device_twin (
    key    TEXT NOT NULL PRIMARY KEY,
    record TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;

CREATE TABLE device_presence (
    key            TEXT    NOT NULL PRIMARY KEY,
    connected      INTEGER NOT NULL,
    changed_at_s   INTEGER NOT NULL,
    last_seen_at_s INTEGER NOT NULL,
    remote_address TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX device_presence_connected ON device_presence (key) WHERE connected;

-- Cloud-to-device messages until the device has acknowledged them.
CREATE TABLE device_message (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    device_key   TEXT    NOT NULL,
    expires_at_s INTEGER NOT NULL,
    deliveries   INTEGER NOT NULL,   -- how often it was sent
    record       TEXT    NOT NULL,
    digest       TEXT    NOT NULL
) STRICT;

CREATE INDEX device_message_by_device ON device_message (device_key, seq);

-- A device that moves and is to start anew has no twin: the next one is made from its enrollment.
CREATE TRIGGER device_reset AFTER UPDATE OF hub ON registration
    WHEN OLD.hub IS NOT NEW.hub AND NEW.substatus = 'deviceDataReset'
BEGIN
    DELETE FROM device_twin WHERE key = NEW.device_key;
END;

-- The registration is the identity at the embedded hub; what the hub has of the device goes with it.
CREATE TRIGGER device_retired AFTER DELETE ON registration
    WHEN NOT EXISTS (SELECT 1 FROM registration WHERE device_key = OLD.device_key)
BEGIN
    DELETE FROM device_twin WHERE key = OLD.device_key;
    DELETE FROM device_presence WHERE key = OLD.device_key;
    DELETE FROM device_message WHERE device_key = OLD.device_key;
END;

-- Whoever changes what sessions rest on bumps this, whichever process it is; the hub then judges its sessions again.
CREATE TRIGGER access_granted AFTER INSERT ON enrollment
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'access';
END;

CREATE TRIGGER access_changed AFTER UPDATE ON enrollment
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'access';
END;

CREATE TRIGGER access_withdrawn AFTER DELETE ON enrollment
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'access';
END;

CREATE TRIGGER access_ended AFTER DELETE ON registration
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'access';
END;

-- At most one a registration; taken out before the answer is looked at.
CREATE TABLE challenge (
    key           TEXT    NOT NULL PRIMARY KEY,
    challenge     BLOB    NOT NULL,
    expires_at_us INTEGER NOT NULL    -- microseconds
) STRICT, WITHOUT ROWID;

CREATE INDEX challenge_expiry ON challenge (expires_at_us);

-- hash = SHA-256(hash of the row before || seq, 8 octets big-endian || record)
CREATE TABLE audit (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s             INTEGER NOT NULL,
    tracking_id      TEXT    NOT NULL,
    registration_key TEXT    NOT NULL,
    code             INTEGER,
    record           TEXT    NOT NULL,
    hash             BLOB    NOT NULL
) STRICT;

CREATE INDEX audit_by_tracking_id ON audit (tracking_id);
CREATE INDEX audit_by_registration ON audit (registration_key, seq);

-- Where the chain begins (0 and 32 zeros, or the last row that retention has removed) and ends.
CREATE TABLE audit_chain (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    base_seq  INTEGER NOT NULL,
    base_hash BLOB    NOT NULL,
    head_seq  INTEGER NOT NULL,
    head_hash BLOB    NOT NULL
) STRICT;

INSERT INTO audit_chain VALUES (1, 0, zeroblob(32), 0, zeroblob(32));

CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'audit rows are never changed');
END;

CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN OLD.seq > (SELECT base_seq FROM audit_chain)
BEGIN
    SELECT raise(ABORT, 'audit rows are removed by retention only, which moves the base of the chain first');
END;

-- The queue of each hub: what is to be made there.
CREATE INDEX registration_by_queue ON registration (hub, key) WHERE status = 'assigning';

-- A device that was disabled loses its session, like one whose enrollment has changed.
CREATE TRIGGER registration_disabled AFTER UPDATE OF status ON registration WHEN NEW.status = 'disabled'
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'access';
END;

-- What is to go from a hub, and when: the other half of its queue. No digest: the rows live for hours.
CREATE TABLE retirement (
    hub             TEXT    NOT NULL,
    device_id       TEXT    NOT NULL,
    registration_id TEXT    NOT NULL,
    action          TEXT    NOT NULL CHECK (action IN ('delete', 'disable')),
    due_at_s        INTEGER NOT NULL,
    reason          TEXT    NOT NULL,
    PRIMARY KEY (hub, device_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX retirement_by_due ON retirement (hub, due_at_s);

-- A hub that drains takes no new devices; here are those that operators drain.
CREATE TABLE draining_hub (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What the daemon that works on a hub's queue has seen of the hub, for the others and for operators.
CREATE TABLE hub_observation (
    name     TEXT NOT NULL PRIMARY KEY,
    observed TEXT NOT NULL      -- JSON
) STRICT, WITHOUT ROWID;

-- Certificates that the local authority's revocation list names.
CREATE TABLE revoked_certificate (
    issuer_hash TEXT    NOT NULL,        -- SHA-256 of the DER issuer Name
    serial      TEXT    NOT NULL,        -- hexadecimal: up to 20 octets
    revoked_at_s INTEGER NOT NULL,
    PRIMARY KEY (issuer_hash, serial)
) STRICT, WITHOUT ROWID;
