"""Text from outside is stored without control characters, and printed as one harmless line."""

import sys
import time
import unicodedata

import pytest

from vsehub.files.text import clean_text, is_unicode, lines_of, printable, text_of

STORED = {
    "plain": ("A red boat, 20 °C.", "A red boat, 20 °C."),
    "paragraphs and tabs stay": ("One.\n\n\tTwo.", "One.\n\n\tTwo."),
    "every kind of line end": ("a\r\nb\rc\u2028d\u2029e\x85f\x0bg\x0ch", "a\nb\nc\nd\ne\nf\ng\nh"),
    "NUL": ("a\0b", "ab"),
    "colours": ("\x1b[1;31mred\x1b[0m boat \x9b2Jhere", "red boat here"),
    "a window title": ("\x1b]0;rm -rf\x07boat\x1b]8;;http://h\x1b\\link", "boatlink"),
    "an unfinished sequence takes no text with it": ("a \x1b]0;boat on a lake", "a ]0;boat on a lake"),
    "bidirectional overrides and isolates": ("a\u202eb\u2066c\u2069d\u200fe\u061cf", "abcdef"),
    "hidden tags and a byte order mark": ("\ufeffboat\U000e0041\U000e007f", "boat"),
    "lone surrogates": ("a\ud800b", "a?b"),
    "joiners of scripts and emoji stay": ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
}


@pytest.mark.parametrize("case", STORED)
def test_stored_text_is_clean_and_cleaning_it_again_changes_nothing(case):
    raw, expected = STORED[case]
    assert clean_text(raw) == expected == clean_text(expected)


PRINTED = {
    "a file name that forges a line": ("a\nerror: all is well.png", "a error: all is well.png"),
    "a colour is shown, not obeyed": ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    "C1 controls": ("a\x9bb", r"a\x9bb"),
    "direction": ("gnp.\u202eexe", r"gnp.\u202eexe"),
    "a tag": ("a\U000e0041", r"a\U000e0041"),
    "a name that is not UTF-8": ("\udcff.png", r"\udcff.png"),
    "an exception": (ValueError("no\r\n  such\tfile\u2028there"), "no such file there"),
}


@pytest.mark.parametrize("case", PRINTED)
def test_a_printed_line_is_one_line_that_shows_what_it_holds(case):
    raw, expected = PRINTED[case]
    assert printable(raw) == expected
    printable(raw).encode()


def test_no_control_surrogate_or_direction_character_of_unicode_passes():
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        obeyed = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        if obeyed or unicodedata.bidirectional(character) in directions:
            text = f"é{character}é"  # no letter that could end a terminal sequence
            assert clean_text(text) in ("éé", "é?é", "é\né", "é\té"), hex(code)
            assert printable(text) != text


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b[0;", "\x9b", "\x1bP0"])
def test_the_time_for_hostile_text_grows_with_its_length_not_with_its_square(piece):
    start = time.process_time()
    clean_text(piece * 100_000)
    printable(piece * 100_000)
    assert time.process_time() - start < 5  # 0.2 s; its square would be hours


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("café\n".encode("latin-1"))
    for reader in (text_of, lines_of):
        with pytest.raises(ValueError, match=r"latin.txt: not a text file in UTF-8 .*: save it as UTF-8"):
            reader(path)
    path.write_text(" café \n\n\u2028\nb\n", encoding="utf-8")
    assert text_of(str(path)).startswith(" café \n") and lines_of(path) == ["café", "b"]
    path.write_text(" \n")
    with pytest.raises(ValueError, match="latin.txt: no line of text"):
        lines_of(path)


def test_a_name_of_other_bytes_than_utf8_is_told_apart():
    assert is_unicode("photo é 👩.jpg") and not is_unicode(b"photo \xe9.jpg".decode("utf-8", "surrogateescape"))
