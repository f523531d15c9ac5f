"""The table of contents: `vsehub VERB ...`. Each verb is a module that is imported only when it is asked for."""

import importlib
import os
import sys

VERBS = {
    "train": ("vsehub.training.train", "train from a recipe or from flags"),
    "teachers": ("vsehub.training.teachers", "features of frozen uni-modal models as columns of the data"),
    "index": ("vsehub.training.index_images", "embed a folder, scene or dataset into an index, or update one"),
    "search": ("vsehub.training.search_index", "find pictures by text, picture or both; JSON, HTML, GeoJSON"),
    "evaluate": ("vsehub.training.evaluate_model", "retrieval metrics of a saved model on a split, by named protocols"),
    "compare": ("vsehub.training.compare", "two evaluations of the same queries: differences, intervals, p-values"),
    "caption": ("vsehub.training.dense_captions", "dense captions from a vision-language model, resumable"),
    "push": ("vsehub.hub_cards.push", "a saved model to a Hub repository, in one commit"),
    "export": ("vsehub.hub_cards.export_onnx", "a model to ONNX (two graphs), or to bfloat16"),
    "convert": ("vsehub.hub_cards.convert", "official checkpoints to Hub folders"),
    "check-leakage": ("vsehub.training.leakage", "images that two sources or splits share, also resized or turned"),
    "explain": ("vsehub.training.explain", "what a PIR model believes of an image, drawn"),
    "demo": ("vsehub.training.demo", "both stages on a generated dataset, then search it"),
    "demo-pir": ("vsehub.training.demo_pir", "PIR on generated overhead scenes, with belief maps"),
}
EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError)  # bad input; everything else is our fault


def main(argv: list[str] | None = None) -> int:
    """Run one verb; bad input ends in one line and exit status 2 (`VSEHUB_TRACEBACK=1` shows where)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: vsehub VERB [...]\n")
        print("\n".join(f"  {verb:14} {about}" for verb, (_, about) in VERBS.items()))
        print("\n`vsehub VERB --help` tells more.")
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        print(f"vsehub: no verb {verb!r}; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(VERBS[verb][0]).main(rest) or 0
    except EXPECTED as error:
        if os.environ.get("VSEHUB_TRACEBACK"):
            raise
        print(f"vsehub {verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
