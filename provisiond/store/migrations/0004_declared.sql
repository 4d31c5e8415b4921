-- What the configuration declares is looked up at every start; among a million records that took four seconds.
CREATE INDEX enrollment_declared ON enrollment (kind, key) WHERE instr(record, '"origin":"config"');
