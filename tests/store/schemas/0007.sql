BEGIN TRANSACTION;
CREATE TABLE audit (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s             INTEGER NOT NULL,
    tracking_id      TEXT    NOT NULL,
    registration_key TEXT    NOT NULL,
    code             INTEGER,
    record           TEXT    NOT NULL,
    hash             BLOB    NOT NULL
) STRICT;
INSERT INTO "audit" VALUES(1,1893553445,'t-1','device-1',NULL,'{"trackingId":"t-1","at":"2030-01-02T03:04:05.678901+00:00","event":"register","registrationId":"Device-1","outcome":"assigned","reason":"","enrollmentKind":"individual","enrollmentId":"Device-1","hub":"local","actor":"192.0.2.7:51234","trace":[["enrollment",true,"individual enrollment",""],["certificate-pinned",true,"is the primary certificate",""],["certificate-validity",true,"until 2031-01-01T00:00:00Z","RFC 5280 6.1.3 (a)(2)"],["certificate-common-name",true,"is the registration id","Azure DPS X.509 attestation"],["certificate-extended-key-usage",true,"clientAuth","RFC 5280 4.2.1.12"],["allocation",true,"hashed: local 0.83",""]]}',X'BD6DA8D51DBB077C0686690F419B833120DE510E6FC4BA85043139C36B3887B0');
INSERT INTO "audit" VALUES(2,1893553445,'t-2','sensor-2',NULL,'{"trackingId":"t-2","at":"2030-01-02T03:04:05.678901+00:00","event":"register","registrationId":"Sensor-2","outcome":"assigned","reason":"","enrollmentKind":"individual","enrollmentId":"Sensor-2","hub":"local","actor":"192.0.2.7:51234","trace":[["enrollment",true,"individual enrollment",""],["certificate-pinned",true,"is the primary certificate",""],["certificate-validity",true,"until 2031-01-01T00:00:00Z","RFC 5280 6.1.3 (a)(2)"],["certificate-common-name",true,"is the registration id","Azure DPS X.509 attestation"],["certificate-extended-key-usage",true,"clientAuth","RFC 5280 4.2.1.12"],["allocation",true,"hashed: local 0.83",""]]}',X'800A5A9DFE14E15215564835EFFA48E10DE3D42011D5A12B2103080FB3CC53F2');
INSERT INTO "audit" VALUES(3,1893553445,'t-3','nobody',401002,'{"trackingId":"t-3","at":"2030-01-02T03:04:05.678901+00:00","event":"register","registrationId":"nobody","outcome":"refused","code":401002,"reason":"","enrollmentKind":"individual","enrollmentId":"nobody","hub":"local","actor":"192.0.2.7:51234","trace":[["enrollment",true,"individual enrollment",""],["certificate-pinned",true,"is the primary certificate",""],["certificate-validity",true,"until 2031-01-01T00:00:00Z","RFC 5280 6.1.3 (a)(2)"],["certificate-common-name",true,"is the registration id","Azure DPS X.509 attestation"],["certificate-extended-key-usage",true,"clientAuth","RFC 5280 4.2.1.12"],["allocation",true,"hashed: local 0.83",""]]}',X'9BF29735F2F5D2122F979084635BFCD1F65E874DF68EA327894D35F9F2FF2DCF');
CREATE TABLE audit_chain (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    base_seq  INTEGER NOT NULL,
    base_hash BLOB    NOT NULL,
    head_seq  INTEGER NOT NULL,
    head_hash BLOB    NOT NULL
) STRICT;
INSERT INTO "audit_chain" VALUES(1,0,X'0000000000000000000000000000000000000000000000000000000000000000',3,X'9BF29735F2F5D2122F979084635BFCD1F65E874DF68EA327894D35F9F2FF2DCF');
CREATE TABLE audit_checkpoint (
    seq       INTEGER NOT NULL PRIMARY KEY,
    hash      BLOB    NOT NULL,
    at_s      INTEGER NOT NULL,
    key_id    TEXT    NOT NULL,          -- first 16 hexadecimal digits of SHA-256 of the public key
    signature BLOB    NOT NULL
) STRICT;
CREATE TABLE challenge (
    key           TEXT    NOT NULL PRIMARY KEY,
    challenge     BLOB    NOT NULL,
    expires_at_us INTEGER NOT NULL    -- microseconds
) STRICT, WITHOUT ROWID;
CREATE TABLE device_message (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    device_key   TEXT    NOT NULL,
    expires_at_s INTEGER NOT NULL,
    deliveries   INTEGER NOT NULL,   -- how often it was sent
    record       TEXT    NOT NULL,
    digest       TEXT    NOT NULL
) STRICT;
INSERT INTO "device_message" VALUES(1,'device-1',3621553445,0,'{"messageId":"m-1","payload":"AGhlbGxv","properties":{},"expiresAt":"2084-10-05T03:04:05.678901+00:00"}','1de61cddb2177e8c');
CREATE TABLE device_presence (
    key            TEXT    NOT NULL PRIMARY KEY,
    connected      INTEGER NOT NULL,
    changed_at_s   INTEGER NOT NULL,
    last_seen_at_s INTEGER NOT NULL,
    remote_address TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE device_subscriptions (
    key     TEXT NOT NULL PRIMARY KEY,
    granted TEXT NOT NULL               -- JSON: QoS by topic filter
) STRICT, WITHOUT ROWID;
INSERT INTO "device_subscriptions" VALUES('device-1','{"$iothub/methods/POST/#": 0}');
CREATE TABLE device_twin (
    key    TEXT NOT NULL PRIMARY KEY,
    record TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
INSERT INTO "device_twin" VALUES('device-1','{"deviceId":"Device-1","tags":{"line":4},"desired":{"interval_s":10},"reported":{},"version":2,"desiredVersion":1,"reportedVersion":1,"updatedAt":"2030-01-02T03:04:05.678901+00:00"}','6fa12118880362b8');
CREATE TABLE draining_hub (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO "draining_hub" VALUES('old');
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
INSERT INTO "enrollment" VALUES(1,'device-1','individual','x509','"1"','{"id":"Device-1","attestation":{"type":"x509","primary":"MIJjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj","secondary":null},"provisioningStatus":"enabled","deviceId":null,"allocationPolicy":null,"iotHubs":["local"],"customAllocation":null,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"initialTwin":{"tags":{"line":4},"desired":{"interval_s":10}},"iotEdge":false,"deviceInformation":null,"origin":"operator","etag":"\"1\"","createdAt":"2030-01-02T03:04:05.678901+00:00","updatedAt":"2030-01-02T03:04:05.678901+00:00"}','375d6f9addbfd671');
INSERT INTO "enrollment" VALUES(2,'sensor-2','individual','symmetricKey','"1"','{"id":"Sensor-2","attestation":{"type":"symmetricKey","primary":"cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA=","secondary":"c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M="},"provisioningStatus":"enabled","deviceId":null,"allocationPolicy":null,"iotHubs":["local"],"customAllocation":null,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"initialTwin":{"tags":{"line":4},"desired":{"interval_s":10}},"iotEdge":false,"deviceInformation":null,"origin":"operator","etag":"\"1\"","createdAt":"2030-01-02T03:04:05.678901+00:00","updatedAt":"2030-01-02T03:04:05.678901+00:00"}','a433ef8123839446');
INSERT INTO "enrollment" VALUES(3,'line-4','group','x509','"1"','{"id":"line-4","attestation":{"type":"x509","primary":"MIIBbTCCARKgAwIBAgIUGgHjH0Nw7UiZioHtia0754f+L3owCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJTGluZSA0IENBMB4XDTI2MTEyMjE5MjIxNVoXDTM2MTEyMDE5MjIxNVowFDESMBAGA1UEAwwJTGluZSA0IENBMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDtcfHD+kGKGXjQ13TPc9QrLYVbzvWecgFA0f0x4V0IhOIBuFe3TDO7VI1o+XRbgN+KkZLKRz5GjNWS2e66iS1KNCMEAwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYEFDAyIuGRgCXSBRdITQzPgAv8KDZLMAoGCCqGSM49BAMCA0kAMEYCIQCkUBmdu5bVMB8kYiiNAM/gXCRI+bXj9H6NmcAGD3fi5gIhAOsq+vN6UXdcX1ugm64pEZM9HQqqXBAw4BQPUVcC4LQJ","secondary":null},"provisioningStatus":"enabled","deviceId":null,"allocationPolicy":null,"iotHubs":["local"],"customAllocation":null,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"initialTwin":{"tags":{"line":4},"desired":{"interval_s":10}},"iotEdge":false,"deviceInformation":null,"origin":"operator","etag":"\"1\"","createdAt":"2030-01-02T03:04:05.678901+00:00","updatedAt":"2030-01-02T03:04:05.678901+00:00"}','995f9b22ad58dee4');
CREATE TABLE enrollment_certificate (
    subject_hash TEXT    NOT NULL,
    enrollment   INTEGER NOT NULL REFERENCES enrollment (id) ON DELETE CASCADE,
    PRIMARY KEY (subject_hash, enrollment)
) STRICT, WITHOUT ROWID;
INSERT INTO "enrollment_certificate" VALUES('34b91f28e1579b315a576a356f3f29cac30e8ab4dd66db3c8b15b9d5d5ce09ae',3);
CREATE TABLE hub_observation (
    name     TEXT NOT NULL PRIMARY KEY,
    observed TEXT NOT NULL      -- JSON
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY  NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('access',4);
INSERT INTO "meta" VALUES('digest_key',X'4B4AC0EE83D6A7F9E82E2BD0513F98A5E9899653F5AA939727EA2A1FAD6838B1');
INSERT INTO "meta" VALUES('generation',2);
INSERT INTO "meta" VALUES('opened',0);
INSERT INTO "meta" VALUES('revocations',1);
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
INSERT INTO "pending_device" VALUES('unknown-1','03d66dd08835c1ca3f128cceacd1f31ac94163096b20f445ae84285bc0832d72','Unknown-1','x509',X'6365727469666963617465',1,1893553445,1893553445,1,'192.0.2.9','t-4',0);
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
INSERT INTO "registration" VALUES(1,'device-1',1,'assigned','initialAssignment','local',NULL,NULL,'device-1','{"registrationId":"Device-1","status":"assigned","substatus":"initialAssignment","operationId":"5.0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef","version":1,"hub":"local","assignedHost":"gateway.local","deviceId":"Device-1","enrollmentKind":"individual","enrollmentId":"Device-1","attestationType":"x509","endorsementKeyHash":null,"endorsementKey":null,"storageRootKey":null,"hubKey":null,"certificate":null,"initialTwin":null,"payload":null,"errorCode":null,"errorMessage":null,"etag":"\"1\"","createdAt":"2030-01-02T03:04:05.678901+00:00","updatedAt":"2030-01-02T03:04:05.678901+00:00"}','33a2dc2d2b6e84b3');
INSERT INTO "registration" VALUES(2,'sensor-2',3,'assigned','initialAssignment','local',NULL,NULL,'sensor-2','{"registrationId":"Sensor-2","status":"assigned","substatus":"initialAssignment","operationId":"5.0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef","version":3,"hub":"local","assignedHost":"gateway.local","deviceId":"Sensor-2","enrollmentKind":"individual","enrollmentId":"Sensor-2","attestationType":"x509","endorsementKeyHash":null,"endorsementKey":null,"storageRootKey":null,"hubKey":null,"certificate":null,"initialTwin":null,"payload":null,"errorCode":null,"errorMessage":null,"etag":"\"1\"","createdAt":"2030-01-02T03:04:05.678901+00:00","updatedAt":"2030-01-02T03:04:05.678901+00:00"}','0b42a73af585d716');
CREATE TABLE registration_count (
    status TEXT    NOT NULL,
    hub    TEXT    NOT NULL,
    total  INTEGER NOT NULL,
    PRIMARY KEY (status, hub)
) STRICT, WITHOUT ROWID;
INSERT INTO "registration_count" VALUES('assigned','local',2);
CREATE TABLE retirement (
    hub             TEXT    NOT NULL,
    device_id       TEXT    NOT NULL,
    registration_id TEXT    NOT NULL,
    action          TEXT    NOT NULL CHECK (action IN ('delete', 'disable')),
    due_at_s        INTEGER NOT NULL,
    reason          TEXT    NOT NULL, grace_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hub, device_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "retirement" VALUES('old','Device-1','Device-1','delete',1893553445,'moved to new',3600);
CREATE TABLE revoked_certificate (
    issuer_hash TEXT    NOT NULL,        -- SHA-256 of the DER issuer Name
    serial      TEXT    NOT NULL,        -- hexadecimal: up to 20 octets
    revoked_at_s INTEGER NOT NULL,
    PRIMARY KEY (issuer_hash, serial)
) STRICT, WITHOUT ROWID;
INSERT INTO "revoked_certificate" VALUES('abababababababababababababababababababababababababababababababab','1234',1893553445);
CREATE INDEX enrollment_group ON enrollment (key) WHERE kind = 'group';
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
CREATE INDEX registration_by_group ON registration (group_key, key) WHERE group_key IS NOT NULL;
CREATE INDEX registration_by_endorsement_key ON registration (endorsement_key_hash)
    WHERE endorsement_key_hash IS NOT NULL;
CREATE INDEX registration_by_device ON registration (device_key, id);
CREATE INDEX registration_unsettled ON registration (status, key) WHERE status <> 'assigned';
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
CREATE INDEX device_presence_connected ON device_presence (key) WHERE connected;
CREATE INDEX device_message_by_device ON device_message (device_key, seq);
CREATE TRIGGER device_reset AFTER UPDATE OF hub ON registration
    WHEN OLD.hub IS NOT NEW.hub AND NEW.substatus = 'deviceDataReset'
BEGIN
    DELETE FROM device_twin WHERE key = NEW.device_key;
END;
CREATE TRIGGER device_retired AFTER DELETE ON registration
    WHEN NOT EXISTS (SELECT 1 FROM registration WHERE device_key = OLD.device_key)
BEGIN
    DELETE FROM device_twin WHERE key = OLD.device_key;
    DELETE FROM device_presence WHERE key = OLD.device_key;
    DELETE FROM device_message WHERE device_key = OLD.device_key;
END;
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
CREATE INDEX challenge_expiry ON challenge (expires_at_us);
CREATE INDEX audit_by_tracking_id ON audit (tracking_id);
CREATE INDEX audit_by_registration ON audit (registration_key, seq);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'audit rows are never changed');
END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN OLD.seq > (SELECT base_seq FROM audit_chain)
BEGIN
    SELECT raise(ABORT, 'audit rows are removed by retention only, which moves the base of the chain first');
END;
CREATE INDEX registration_by_queue ON registration (hub, key) WHERE status = 'assigning';
CREATE TRIGGER registration_disabled AFTER UPDATE OF status ON registration WHEN NEW.status = 'disabled'
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'access';
END;
CREATE INDEX retirement_by_due ON retirement (hub, due_at_s);
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
CREATE INDEX pending_device_by_age ON pending_device (last_seen_at_s);
CREATE INDEX enrollment_declared ON enrollment (kind, key) WHERE instr(record, '"origin":"config"');
CREATE INDEX retirement_by_registration ON retirement (lower(registration_id));
CREATE INDEX enrollment_again ON enrollment (kind, key);
CREATE INDEX enrollment_certificate_again ON enrollment_certificate (subject_hash, enrollment);
CREATE INDEX registration_again ON registration (key, id);
CREATE INDEX registration_by_endorsement_key_again ON registration (endorsement_key_hash, key)
    WHERE endorsement_key_hash IS NOT NULL;
CREATE INDEX draining_hub_again ON draining_hub (name);
CREATE TRIGGER device_unsubscribed AFTER DELETE ON registration
    WHEN NOT EXISTS (SELECT 1 FROM registration WHERE device_key = OLD.device_key)
BEGIN
    DELETE FROM device_subscriptions WHERE key = OLD.device_key;
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('audit',3);
INSERT INTO "sqlite_sequence" VALUES('device_message',1);
COMMIT;
PRAGMA application_id=1886547830;
PRAGMA user_version=7;
