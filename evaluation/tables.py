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
    """Metrics of an evaluation that are not in the table: duplicate-aware recalls and scene precision."""
    lines = []
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
            total = (
                f"{metrics['duplicate_aware_mean_recall']:15.2f}"
                if prefix == "duplicate_aware"
                else f"  {what}@1, 5, 10"
            )
            lines.append(f"{name:24}{cells[0]} {cells[1]} {total}")
    for task in ("image_to_image", "text_to_text", "image_to_mixed", "text_to_mixed"):
        if f"{task}_ndcg@10" in metrics:
            cells = "".join(f"{metrics[f'{task}_ndcg@{k}']:7.1f}" for k in (10, 20, 50))
            lines.append(f"{task.replace('_', ' '):24}{cells}  NDCG@10, 20, 50")
    return lines


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


__all__ = ["further_lines", "protocol_table", "table"]
