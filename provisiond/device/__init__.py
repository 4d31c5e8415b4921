"""The device's side: a client library, a simulator, a TPM."""
