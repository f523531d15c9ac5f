"""A line of a table for each evaluation of a run."""

COLUMNS = (  # the title, the metric of an evaluation, the width
    ("loss", "loss", 8),
    ("I2T R@1", "eval_image_to_text_recall@1", 9),
    ("R@5", "eval_image_to_text_recall@5", 7),
    ("R@10", "eval_image_to_text_recall@10", 7),
    ("T2I R@1", "eval_text_to_image_recall@1", 9),
    ("R@5", "eval_text_to_image_recall@5", 7),
    ("R@10", "eval_text_to_image_recall@10", 7),
    ("rSum", "eval_rsum", 8),
    ("accuracy", "eval_accuracy", 10),
)
DECIMALS = {"loss": 3}


def table_head(metrics: dict) -> str:
    """The titles of the columns that these metrics fill."""
    return f"{'stage':12}{'step':>6}" + "".join(f"{title:>{width}}" for title, key, width in COLUMNS if key in metrics)


def table_line(stage: str, step: int | str, metrics: dict) -> str:
    """One evaluation."""
    cells = "".join(f"{metrics[key]:{width}.{DECIMALS.get(key, 1)}f}" for _, key, width in COLUMNS if key in metrics)
    return f"{stage:12}{step:>6}{cells}"


__all__ = ["table_head", "table_line"]
