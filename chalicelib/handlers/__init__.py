"""The team's own handlers: every module in here is imported by the processor (docs/handlers.md)."""
