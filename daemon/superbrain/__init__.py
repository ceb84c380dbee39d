"""superbrain: an appliance that proves signed model bundles on its own host and serves them.

`superbrain.client` is what programs that want answers import; the rest is the daemon.
"""

__version__ = "0.1.0"
