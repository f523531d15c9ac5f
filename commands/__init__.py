"""One thin file a verb: flags, one call into the library, what is printed."""
