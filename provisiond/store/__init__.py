"""Durable state behind the Store port."""
