"""The whole system on one machine: embedded PostgreSQL, emulated AWS, the API and the processor (`make run`).

Nothing in here is packaged into a function.
"""
