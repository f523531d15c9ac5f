"""Queries about things that no caption of a data set names: what a search should answer with nothing.

Captions of the same data are no such queries: pictures of other items often answer them, too.
"""

import re
from collections.abc import Iterable

SUBJECTS = """
accordion, anchor, ant, aquarium, astronaut, bagpipe, ballet dancer, barber, barcode, birthday cake, bottle of milk,
cactus, calculator, calendar, camel, candle, castle, cathedral, ceiling fan, cheese sandwich, chess board, chimney,
classroom, clown, coffin, compass, coral reef, courtroom, cow, crossword, dentist, diamond ring, dinosaur, dragon, drum,
egg, elephant, envelope, escalator, fireplace, firework, fossil, fountain pen, frog, funeral, garlic bulb, ghost,
giraffe, glass of wine, goldfish, hammer, harp, hedgehog, helicopter, hospital bed, igloo, ironing board, jellyfish,
kangaroo, kettle, key, ladder, lawn mower, lemon, lighthouse, lobster, mailbox, mermaid, microscope, mirror, moose,
mosquito, mushroom, necktie, newspaper, octopus, onion, orchestra, owl, parachute, parrot, passport, peacock, penguin,
piano, pineapple, pirate, pizza, polar bear, potato, printer, pumpkin, puppet, pyramid, rainbow, razor, refrigerator,
rhinoceros, rocket, saxophone, scarecrow, scorpion, sewing machine, shark, sheep, shipwreck, sink, skeleton,
snail, snowman, spider web, spoon, statue, stethoscope, submarine, suitcase, sundial, tax return, teapot, telescope,
thermometer, throne, tiger, toothbrush, tractor, treadmill, trophy, tuba, turtle, typewriter, unicorn, vacuum cleaner,
vending machine, violin, volcano, wallet, walrus, washing machine, wheelchair, whale, wig, windmill, wolf, zebra
"""
COMMON = {"of"}  # words of the subjects that say nothing about them
ARTICLES = {"a", "an", "the", "of", "in", "on", "with", "and", "is", "are"}


def off_topic_queries(captions: Iterable[str]) -> list[str]:
    """Queries such as "a violin", for each subject of which no caption has a word, singular or plural.

    Args:
        captions: in English, of the pictures that the queries must not fit.

    Returns:
        At most as many as there are subjects; none where fewer than half of the captions look English.
    """
    words_of = [set(re.findall(r"\w+", caption.casefold())) for caption in captions]
    if 2 * sum(not words.isdisjoint(ARTICLES) for words in words_of) < len(words_of):
        return []
    named = set().union(*words_of)
    named |= {word.removesuffix(end) for word in named for end in ("s", "es")}
    subjects = [" ".join(subject.split()) for subject in SUBJECTS.split(",")]
    return [
        f"{'an' if subject[0] in 'aeio' else 'a'} {subject}"
        for subject in subjects
        if named.isdisjoint({*subject.split()} - COMMON)
    ]


__all__ = ["off_topic_queries"]
