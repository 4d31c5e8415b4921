"""Wire formats, both ends. Pure."""
