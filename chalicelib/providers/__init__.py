"""The kinds of senders: how each signs, and where it puts an event's id and type.

A provider that uses a known scheme is one entry in `catalogue.py`.
"""

from chalicelib.providers.catalogue import PROVIDERS, Provider

__all__ = ["PROVIDERS", "Provider"]
