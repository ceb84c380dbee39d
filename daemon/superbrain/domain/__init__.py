"""The pure rules: manifest, trust, deployment table, goldens, swap and restart policies, health.

No I/O, no clock, no ZeroMQ: the standard library, msgspec and numpy only.
"""
