"""Queries that fit no picture of a data set: of its captions, none names what they name."""

from vsehub.search.off_topic import off_topic_queries


def test_what_a_caption_names_is_no_such_query():
    every = off_topic_queries(["a dog on grass"])
    assert {"a violin", "an elephant", "a glass of wine"} <= {*every}
    assert len(every) == len({*every}) > 100
    captions = ["Two Violins near the wall", "an ELEPHANT.", "windmills in a field", "a glass", "the foxes of a zoo"]
    fewer = off_topic_queries(captions)
    assert {*every} - {*fewer} == {"a violin", "an elephant", "a windmill", "a glass of wine"}


def test_captions_in_another_language_have_none():
    assert off_topic_queries(["ein Hund im Schnee", "zwei Boote"]) == [] == off_topic_queries(["一只狗"])
    assert off_topic_queries(["ein Hund im Schnee", "a dog"])
