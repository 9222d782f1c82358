"""One file a command of the command line: options in, one call, results on stdout, progress on stderr."""
