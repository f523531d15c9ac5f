"""Train a plain dual encoder with InfoNCE and structure-aware distillation (Yang et al., IEEE TIP 2024).

    vsehub teachers org/pairs --vision facebook/dinov2-base --text sentence-transformers/all-mpnet-base-v2 --out pairs
    accelerate launch training/run_rebalanced.py --data pairs --vision ... --text ... --output_dir runs/rebalanced

The same as `run_d2s.py --stages baseline --align infonce --ramp_epochs 0 --structure_weight 2`; every flag of it works.
The paper's student re-ranks with a cross-encoder trained by image-text matching; that is out of scope here.
"""

import sys

from vsehub.training import run_d2s

DEFAULTS = {"system": "rebalanced", "stages": "baseline", "align": "infonce", "ramp_epochs": 0, "structure_weight": 2}


def main(argv: list[str] | None = None) -> int:
    """Run D2S-VSE's baseline stage with the objective of the paper; a recipe and flags win."""
    return run_d2s.main(argv, DEFAULTS)


if __name__ == "__main__":
    sys.exit(main())
