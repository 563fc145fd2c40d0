"""The experiment binaries: flags in, library call, files out."""
