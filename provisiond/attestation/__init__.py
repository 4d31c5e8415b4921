"""Evidence, trust material and a time in; a Verified out, or an exception. Pure."""
