"""Writing files completely, locks, digests, and the list of samples that were left out."""
