"""The hubs that are linked: connectors to those of other kinds, how they fare, and who works on which."""
