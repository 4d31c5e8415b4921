-- Devices that nobody enrolled, waiting for an operator; bounded in number and time (pending.py).
CREATE TABLE pending_device (
    registration_key TEXT    NOT NULL,
    evidence_hash    TEXT    NOT NULL,   -- SHA-256 of the certificate or the endorsement key
    registration_id  TEXT    NOT NULL,
    attestation_type TEXT    NOT NULL,
    evidence         BLOB    NOT NULL,
    proved           INTEGER NOT NULL,   -- whether the device has shown that it holds the key
    first_seen_at_s  INTEGER NOT NULL,
    last_seen_at_s   INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    remote_address   TEXT    NOT NULL,
    tracking_id      TEXT    NOT NULL,   -- of the newest attempt
    rejected         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (registration_key, evidence_hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX pending_device_by_age ON pending_device (last_seen_at_s);
