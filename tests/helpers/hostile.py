"""A pickle that must never be allowed to run."""

import os


class Hostile:
    """Unpickling it writes a file."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)
