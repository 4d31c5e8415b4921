"""Hub connectors behind the Hub port."""
