"""Commands that need an endpoint: one file a command, imported when it is called."""
