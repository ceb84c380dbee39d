"""`superbrain support-bundle`: one archive for a remote engineer.

`command.py` is the command, `parts.py` the table of what is collected, `source.py` where it comes
from, `redact.py` what never goes in, `archive.py` the file.
"""
