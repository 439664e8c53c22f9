"""What the daemon does, over ports: Deferreds, but no reactor import and no vendor library."""
