-- What a device had subscribed to when it was last connected to the embedded hub without a clean session: the Azure SDKs
-- do not subscribe again when they renew their token, or when the service was restarted.
CREATE TABLE device_subscriptions (
    key     TEXT NOT NULL PRIMARY KEY,
    granted TEXT NOT NULL               -- JSON: QoS by topic filter
) STRICT, WITHOUT ROWID;

CREATE TRIGGER device_unsubscribed AFTER DELETE ON registration
    WHEN NOT EXISTS (SELECT 1 FROM registration WHERE device_key = OLD.device_key)
BEGIN
    DELETE FROM device_subscriptions WHERE key = OLD.device_key;
END;
