"""Cut `pir.safetensors` to one image and one caption, so that it fits a repository.

    python tests/goldens/cut_pir.py FOLDER_OF_THE_FULL_GOLDENS

The first row of every input and output of the model is kept. The losses (`in.loss_*`, `out.grad_*` and the scalars) are
of one batch of 12 pairs and stay as they are.
"""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

OF_THE_BATCH = ("in.loss_", "out.grad_", "out.contrastive", "out.affiliation", "out.triplet")
HERE = Path(__file__).parent


def main(source: str) -> None:
    """Read the full file from `source`, write the cut one beside this script."""
    tensors = load_file(Path(source) / "pir.safetensors")
    cut = {name: t if name.startswith(OF_THE_BATCH) else t[:1].clone() for name, t in tensors.items()}
    save_file(cut, HERE / "pir.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
