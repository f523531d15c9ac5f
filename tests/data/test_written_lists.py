"""Lists that are written as text are refused; texts with brackets are not."""

import pytest

from vsehub.data.written_lists import refuse_written_lists


@pytest.mark.parametrize("text", ['["a dog", "a cat"]', "['a dog', 'a cat']", ' ["it\'s a dog"]\n'])
def test_lists_in_the_way_of_json_or_python_are_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match=r"column 'raw' holds lists that are written as text, as .* json.loads"):
        refuse_written_lists([None, "", text, text], "column 'raw'")


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [None, " "],
        ["[1, 2]"],
        ["[]"],
        ["[a dog]"],
        ["[" * 50_000 + "]" * 50_000],
        ['["a dog"]', "a cat"],
        ['{"a": "dog"}'],
    ],
)
def test_other_texts_pass(texts):
    refuse_written_lists(texts, "column 'raw'")
