"""The rows of a run, and what is said of them before it starts."""

from small_runs import run


def test_recall_among_so_few_pictures_that_each_is_found_is_told_to_mean_nothing(scenes, tmp_path, capsys):
    run(scenes, tmp_path, "--stages", "baseline", "--max_eval_images", "1")
    assert "1 picture to evaluate on; among so few every model finds the right ones" in capsys.readouterr().err
