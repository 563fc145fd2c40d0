"""What the command line needs of the library: flags from settings, and their help."""
