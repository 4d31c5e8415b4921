"""Which enrollment claims a request, and what happens when a device asks again. Pure."""
