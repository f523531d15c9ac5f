"""The table of a run has the columns that an evaluation fills."""

from vsehub.training.reports.evaluation_table import table_head, table_line


def test_the_table_shows_the_metrics_that_there_are():
    assert table_head({"eval_rsum": 1.0}).split() == ["stage", "step", "rSum"]
    assert table_line("finetune", 100, {"eval_rsum": 123.456, "eval_loss": 1.0}).split() == ["finetune", "100", "123.5"]
    assert table_line("finetune", "best", {"loss": 1.23456}).split() == ["finetune", "best", "1.235"]


def test_titles_stand_above_their_numbers():
    metrics = {"loss": 1.0, "eval_image_to_text_recall@1": 10.0, "eval_rsum": 300.0}
    assert len(table_head(metrics)) == len(table_line("finetune", 10, metrics))
