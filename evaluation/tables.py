"""Evaluations as tables for a terminal."""

from .protocols import PROTOCOLS


def table(rows: dict[str, dict]) -> str:
    """Lay out metrics as a table: one line per name; recalls both ways, their sum, and seconds where known."""
    ks = (1, 5, 10)
    head = f"{'':24}" + "image to text".center(22) + "text to image".center(22) + f"{'rSum':>8}{'mR':>7}{'time':>8}"
    lines = [head, f"{'':24}" + "".join(f"{f'R@{k}':>7}" for k in ks) + " " + "".join(f"{f'R@{k}':>7}" for k in ks)]
    for name, metrics in rows.items():
        cells = [f"{name:24}"]
        for way in ("image_to_text", "text_to_image"):
            cells.append("".join(f"{metrics[f'{way}_recall@{k}']:7.1f}" for k in ks) + " ")
        cells.append(f"{metrics['rsum']:8.1f}{metrics['mean_recall']:7.2f}")
        cells.append(f"{metrics['seconds']:7.0f}s" if "seconds" in metrics else "")
        lines.append("".join(cells))
    return "\n".join(lines)


def further_lines(metrics: dict) -> list[str]:
    """Metrics of an evaluation that are not in the table: duplicate-aware recalls, scene precision, means of folds."""
    lines = _fold_lines(metrics)
    for name, prefix, what in (
        ("identical captions count", "duplicate_aware", "recall"),
        ("same scene class", "scene", "precision"),
    ):
        if f"{prefix}_text_to_image_{what}@1" in metrics:
            ways = ("image_to_text", "text_to_image")
            cells = [
                "".join(f"{metrics.get(f'{prefix}_{way}_{what}@{k}', float('nan')):7.1f}" for k in (1, 5, 10))
                for way in ways
            ]
            total = f"  {what}@1, 5, 10"
            if prefix == "duplicate_aware":
                total = f"{metrics['duplicate_aware_mean_recall']:15.2f}"
            lines.append(f"{name:24}{cells[0]} {cells[1]} {total}")
    for task in ("image_to_image", "text_to_text", "image_to_mixed", "text_to_mixed"):
        if f"{task}_ndcg@10" in metrics:
            cells = "".join(f"{metrics[f'{task}_ndcg@{k}']:7.1f}" for k in (10, 20, 50))
            lines.append(f"{task.replace('_', ' '):24}{cells}  NDCG@10, 20, 50")
    return lines


def _fold_lines(metrics: dict) -> list[str]:
    """The means over folds, under the columns of `table`."""
    lines = []
    for name in (name for name in metrics if name.endswith("_fold_rsum")):
        of = name.removesuffix("rsum")
        ways = [[metrics[f"{of}{way}_recall@{k}"] for k in (1, 5, 10)] for way in ("image_to_text", "text_to_image")]
        cells = ["".join(f"{value:7.1f}" for value in way) for way in ways]
        sums = f"{metrics[name]:9.1f}{metrics[f'{of}mean_recall']:7.2f}"
        lines.append(f"{'mean of ' + of.partition('_')[0] + ' folds':24}{cells[0]} {cells[1]}{sums}")
    return lines


def few_images(images: int) -> str:
    """What to say of an evaluation among so few images that any model is right; nothing of one among more."""
    if images == 1:
        return "remark: with one image every model scores 100 %, so these figures mean little: evaluate more images"
    if 1 < images <= 10:
        return (
            f"remark: among {images} images a caption finds its own within the first 10 with every model, so R@10 and "
            "the sums mean little: evaluate more images"
        )
    return ""


def protocol_table(record: dict) -> str:
    """Every metric of every protocol with its interval."""
    lines = []
    for name, part in record["protocols"].items():
        lines.append(f"{name}: {PROTOCOLS[name].about}")
        for metric, value in part["metrics"].items():
            low, high = part["intervals"].get(metric, (None, None))
            lines.append(f"  {metric:44}{value:9.2f}" + ("" if low is None else f"   [{low:.2f}, {high:.2f}]"))
    share = 100 * record["intervals"]["level"]
    return "\n".join([*lines, f"in brackets: {share:g} % bootstrap intervals over images"])


MEASURES = {  # of `analyse.describe`: what stands in the table -> where it is, and its decimals
    "numbers of an embedding": (("dimension",), 0),
    "effective rank, images": (("image", "effective_rank"), 1),
    "effective rank, texts": (("text", "effective_rank"), 1),
    "directions of 90 % of the variance, images": (("image", "directions_90"), 0),
    "directions of 90 % of the variance, texts": (("text", "directions_90"), 0),
    "alignment (0: pairs coincide)": (("alignment",), 3),
    "uniformity, images (-4: spread evenly)": (("image", "uniformity"), 3),
    "uniformity, texts": (("text", "uniformity"), 3),
    "modality gap": (("modality_gap",), 3),
    "nearer to the own modality's mean, %": (("separability",), 1),
    "rSum": (("rsum",), 1),
    "a caption finds its dense text, R@1": (("dense_recall", "recall@1"), 1),
    "  R@5": (("dense_recall", "recall@5"), 1),
    "  R@10": (("dense_recall", "recall@10"), 1),
}
FIRST = 44  # characters of the column of names


def analysis_table(results: dict[str, dict]) -> str:
    """Analyses side by side: a line for each measure, a column for each model.

    Args:
        results: name of a model -> what `analyse.describe` returned; all of the same rows.
    """
    one = next(iter(results.values()))
    widths = [max(10, len(name) + 2) for name in results]

    def line(title: str, values: list) -> str:
        return f"{title:{FIRST}}" + "".join(f"{value:>{width}}" for value, width in zip(values, widths))

    lines = [f"{one['images']} images, {one['texts']} captions", line("", list(results))]
    for title, (path, digits) in MEASURES.items():
        if path[0] in one:
            numbers = [each[path[0]] if len(path) == 1 else each[path[0]][path[1]] for each in results.values()]
            lines.append(line(title, [f"{number:.{digits}f}" for number in numbers]))
    for key, title in (("recall_by_words", "words"), ("recall_by_content_words", "distinct content words")):
        lines.append(f"text to image R@1 by {title} of the caption")
        for row, part in enumerate(one[key]):
            name = f"  {part['from']}" + (f" to {part['to']}" if part["to"] > part["from"] else "")
            shown = [f"{each[key][row]['recall@1']:.1f}" for each in results.values()]
            lines.append(line(f"{name} ({part['texts']} captions)", shown))
    if any("recall_by_width" in each for each in results.values()):
        lines.append("rSum by the first numbers of the embedding")
        by_name = [{row["width"]: row["rsum"] for row in each.get("recall_by_width", [])} for each in results.values()]
        for width in sorted({width for rows in by_name for width in rows}):
            lines.append(line(f"  {width}", [f"{rows[width]:.1f}" if width in rows else "-" for rows in by_name]))
    return "\n".join(lines)


__all__ = ["analysis_table", "few_images", "further_lines", "protocol_table", "table"]
