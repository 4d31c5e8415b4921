"""Which hub a verified device gets. Pure."""
