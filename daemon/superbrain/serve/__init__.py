"""The processes that answer requests: the gateway with the public sockets, and the workers.

Only the worker may reach an engine; the gateway imports no runtime and no bundle code.
"""
