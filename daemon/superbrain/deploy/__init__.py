"""Bringing bundles live: inbox, journal, driver of deployments, supervisor of child processes."""
