-- A row that an index leads to is checked by its digest. That an index leads nowhere nothing can check, but another
-- index: a flipped bit is in one of them. So what a decision looks up is looked up in two.
CREATE INDEX enrollment_again ON enrollment (kind, key);

CREATE INDEX enrollment_certificate_again ON enrollment_certificate (subject_hash, enrollment);

CREATE INDEX registration_again ON registration (key, id);

CREATE INDEX registration_by_endorsement_key_again ON registration (endorsement_key_hash, key)
    WHERE endorsement_key_hash IS NOT NULL;

CREATE INDEX draining_hub_again ON draining_hub (name);
