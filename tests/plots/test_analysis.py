"""The page of analyses: a panel for each figure that there is, a line for each model."""

import pytest

from vsehub.plots.analysis import draw_analysis

BINS = [{"from": 1, "to": 4, "texts": 5, "recall@1": 20.0}, {"from": 5, "to": 5, "texts": 4, "recall@1": 40.0}]
MODALITY = {"effective_rank": 2.5, "spectrum": [0.75, 0.25]}
FIGURES = {"image": MODALITY, "text": MODALITY, "recall_by_words": BINS, "recall_by_content_words": BINS}
MORE = {
    "dense_recall": {"recall@1": 1.0, "recall@5": 2.0},
    "recall_by_width": [{"width": 8, "rsum": 90.0}, {"width": 16, "rsum": 99.0}],
}


def test_the_page_names_every_panel_and_model(tmp_path):
    out = tmp_path / "page.svg"
    draw_analysis({"org/one": FIGURES | MORE, "org/two": FIGURES | MORE}, [out, tmp_path / "page.png"])
    page = out.read_text()
    for title in (
        "variance of the image embeddings",
        "by distinct content words",
        "dense text",
        "rSum by width",
        "1-4",
    ):
        assert title in page, title
    assert "org/one: effective rank 2" in page and page.count("<!-- org/two -->") == 5
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"
    draw_analysis({"org/one": FIGURES}, [out])
    assert "rSum by width" not in out.read_text() and "dense text" not in out.read_text()


def test_names_of_models_are_no_formulas(tmp_path):
    draw_analysis({"runs/$x$": FIGURES, "_private/hub": FIGURES}, [tmp_path / "page.svg"])
    page = (tmp_path / "page.svg").read_text()
    assert "<!-- runs/$x$ -->" in page and "_private/hub -->" in page


def test_a_format_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ValueError, match="page.xyz: .*not supported"):
        draw_analysis({"m": FIGURES}, [tmp_path / "page.xyz"])
