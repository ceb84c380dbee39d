"""The words on the wire: messages, frames, datatypes and error codes, shared by client and gateway.

No I/O, and nothing of superbrain is imported here: every other package may depend on this one.
"""
