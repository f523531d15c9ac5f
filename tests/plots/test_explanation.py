"""What a PIR model believes of an image, from Python."""

import pytest

from vsehub.plots.explanation import explain


@pytest.fixture
def picture(tmp_path, tiny_pictures):
    tiny_pictures[1].save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


def test_boxes_lie_in_the_picture_and_texts_are_ranked(pir_folder, picture, tiny_captions, tiny_pictures):
    made = explain(str(pir_folder), picture, tiny_captions, top=4)
    width, height = tiny_pictures[1].size
    assert len(made.boxes) == 5 and [b for _, b in made.boxes] == sorted((b for _, b in made.boxes), reverse=True)
    assert all(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for (x0, y0, x1, y1), _ in made.boxes)
    scores = [score for _, score in made.hits]
    assert len(made.hits) == 4 and scores == sorted(scores, reverse=True)
    assert {text for text, _ in made.hits} <= {*tiny_captions}
    assert explain(str(pir_folder), picture).hits == []


def test_a_model_without_belief_is_refused(tiny_folder, picture):
    with pytest.raises(ValueError, match="has no belief: only PIR models"):
        explain(str(tiny_folder), picture)
