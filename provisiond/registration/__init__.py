"""The registration machine and the decision. Pure."""
