"""Configuration, and the only place where the parts are wired together into the daemon."""
