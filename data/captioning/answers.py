"""From the answer of a vision-language model to the caption in it, or to the reason why it holds none.

An answer is not a caption: models reason first, leave tokens of their chat format behind, decline, or fall into a loop.
Everything here is a function of text, used for local models and for servers alike.

The markers are those that chat templates of published models write, as parsed by vLLM's and SGLang's reasoning parsers:
<think> (DeepSeek, Qwen, GLM, InternVL, ...), <seed:think>, <longcat_think>, [THINK] (Mistral), ◁think▷ (Kimi), channels
(gpt-oss, Gemma 4), <unused94> (MedGemma), [unused16] (Pangu), <|inner_prefix|> (Apertus), <|START_THINKING|> (Cohere).
"""

import re

from ...files.text import clean_text

NAME = r"(?:[\w.-]{1,20}[:_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad)"
THINK = r"(?:think(?:ing)?|thoughts?|reasoning)"
OPENINGS = (
    rf"<{NAME}(?:\s[^<>]{{0,80}})?>",
    rf"\[{THINK}\]",
    rf"◁{THINK}▷",
    rf"<\|(?:begin_of_|start_)?{THINK}(?:_start)?\|>",
    r"<\|inner_prefix\|>|<unused94>|\[unused16\]|<\|channel>",
    r"<\|channel\|>\s*(?:analysis|commentary|thought)[^<>]{0,80}(?:<\|constrain\|>\w{0,20})?(?:<\|message\|>)?",
    r"here(?: is|'s) my thought process:",
    r"\A\s*analysis(?=(?-i:[A-Z]))|\A\s*thought\n",  # channels whose markers the server removed as special tokens
)
CLOSINGS = (
    rf"</{NAME}\s*>",
    rf"\[/{THINK}\]",
    rf"◁/{THINK}▷",
    rf"<\|(?:/|end_of_|end_){THINK}\|>|<\|{THINK}_end\|>",
    r"<\|inner_suffix\|>|<unused95>|\[unused17\]|<channel\|>",
    r"<\|channel\|>\s*final[^<>]{0,80}(?:<\|message\|>)?|assistantfinal(?=(?-i:[A-Z]))",
    r"here(?: is|'s) my response:",
)
MARKERS = re.compile(f"(?P<opening>{'|'.join(OPENINGS)})|(?P<closing>{'|'.join(CLOSINGS)})", re.IGNORECASE)
FRAMES = re.compile(r"<(/?)(answer|response|output|solution|conclusion|final(?:_answer)?)\s*>", re.IGNORECASE)
TURN_ENDS = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|eot|eom|endoftext|end_of_text|end|return|call|end_of_turn|end_of_turn_token|endofturn"
    r"|eos|user|observation|assistant_end)\|>|</s>|<eos>|<end_of_turn>|<turn\|>|<end_of_utterance>"
    r"|<｜(?:end▁of▁sentence|User)｜>|\[EOS\]",
    re.IGNORECASE,
)
ROLE = r"(?:(?:assistant|model)(?=\s*(?:[:\n<]|\Z)):?)?"
SPECIALS = re.compile(
    rf"(?:<\|(?:im_start|start_header_id|start_of_role|start)\|>|<\|turn>|<start_of_turn>)\s*{ROLE}"
    r"|<\|box_start\|>[^<]{0,200}<\|box_end\|>|<box>[^<]{0,200}</box>"  # coordinates of grounding models
    r"|<\|[^<>|\s]{1,60}\|>|<｜[^<>｜\s]{1,60}｜>|</?s>|</?(?:ref|img|box|quad)>|<0x[0-9A-F]{2}>"
    r"|<(?:pad|unk|bos|eos|mask|cls|sep|image|image_soft_token|(?:start|end)_of_image|fake_token_around_image)>"
    r"|<(?:unused|extra_id_|loc_?|reserved_special_token_)\d{1,5}>"
    r"|\[(?:PAD|UNK|CLS|SEP|MASK|BOS|EOS|/?INST|IMG|IMG_END)\]|<</?SYS>>"
    rf"|<{NAME}\s*/>",
    re.IGNORECASE,
)
GAP = re.compile(" ?\0+(?= |\\Z)|\0+")  # places of removed tokens, with the second of two spaces
FIRST_ROLE = re.compile(r"\Aassistant\s*[:\n]\s*", re.IGNORECASE)
ESCAPED = re.compile(r"&lt;(/?[|\w:.-]{1,60})&gt;")

OPENERS = r"\A(?:(?:okay|ok|alright|all right|hmm+|well|so|right|got it|first|now|好的|首先)\b[,.!:;，。\s]*)*"
ABOUT_THE_USER = re.compile(
    OPENERS + r"(?:(?:the|this) user(?:'s)? (?:want|ask|is asking|has|would|need|provid|sent|upload|request)|用户)",
    re.IGNORECASE,
)
TO_ITSELF = re.compile(
    OPENERS + r"(?:let me|let's|let us|(?:i|we) (?:need to|should|have to|must)|i[’']ll|i will|我需要)\b", re.IGNORECASE
)
PICTURE = r"(?:image|picture|photo)\w*"
DECLINES = re.compile(
    r"\A(?:(?:i[’']?m|i am|we[’']?re)\s+(?:really |very |so )?sorry|sorry|i apologi[sz]e|as an ai"
    r"|unfortunately,? (?:i|we|there|no)|i[’']m (?:unable|not able)"
    r"|i (?:can[’']?t|cannot|can not|won[’']t|am unable|am not able)(?! help but))\b"
    rf"|\bi (?:don[’']?t|do not) (?:see|have access to) (?:any |an |the |this |your )*{PICTURE}"
    rf"|\b(?:no|any) {PICTURE} (?:was |is |has been |have been |were )?(?:provided|attached|uploaded|shared)"
    rf"|\bplease (?:upload|provide|attach) (?:an |the |your )*{PICTURE}",
    re.IGNORECASE,
)
SHORT_ENOUGH_TO_DECLINE = 60  # words; a longer answer is a description, however it begins
# A word, or one character of a script that puts no spaces between words.
WORDS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W_]+(?:['’-][^\W_]+)*"
)
LONGEST_PHRASE = 60  # words that a loop may repeat
CHARACTERS_A_TOKEN = 32  # more than any answer has on average; beyond it the server ignored the limit
NO_REASONING = "raise --max_new_tokens, or take a model (or a setting of the server) that does not reason first"


class UnusableAnswerError(ValueError):
    """An answer that holds no caption; the message says why."""


def caption_in(
    answer: str,
    prompt: str = "",
    min_words: int = 3,
    max_new_tokens: int = 500,
    truncated: bool = False,
    in_reasoning: bool = False,
) -> str:
    """Return the caption in a model's answer: no reasoning, special tokens or control characters.

    Args:
        answer: what the model generated.
        prompt: the question, to know an answer that only says it again.
        min_words: fewer words than these are no caption.
        max_new_tokens: what was asked for.
        truncated: whether the answer was cut at its limit.
        in_reasoning: whether the prompt had opened the model's reasoning already, see `opens_reasoning`.

    Raises:
        UnusableAnswerError: nothing but reasoning, a refusal, the question, a few words or a loop.
    """
    if len(answer) > CHARACTERS_A_TOKEN * max_new_tokens:
        raise UnusableAnswerError(f"an answer of {len(answer)} characters where {max_new_tokens} tokens were asked for")
    plain = ESCAPED.sub(r"<\1>", clean_text(answer))
    outside = without_reasoning(plain, in_reasoning)
    caption = without_special_tokens(framed(outside))
    if without_special_tokens(caption) != caption or MARKERS.search(caption):
        raise UnusableAnswerError("an answer with markers of the chat format inside each other")
    if not caption:
        reasoned = bool(plain.strip()) and not outside.strip()
        raise UnusableAnswerError(f"nothing but reasoning; {NO_REASONING}" if reasoned else "an empty answer")
    refuse_no_caption(caption, prompt, min_words, truncated)
    return caption


def without_reasoning(answer: str, inside: bool = False) -> str:
    """Return what a model says after its reasoning.

    A closing marker without its opening means that the prompt held the opening: all before it is reasoning.

    Raises:
        UnusableAnswerError: the answer ends inside its reasoning, or it has text on both sides of it, of which nobody
            knows whether it is caption or reasoning that mentions a marker; an `<answer>` afterwards settles that.
    """
    kept, start = "", 0
    for marker in MARKERS.finditer(answer):
        if not inside:
            kept += answer[start : marker.start()]
        if marker["closing"]:
            settled = not inside or not without_special_tokens(kept) or FRAMES.search(answer, marker.end())
            if not settled:
                raise UnusableAnswerError("text before the model's reasoning")
            kept = ""
        inside, start = marker["closing"] is None, marker.end()
    if inside:
        raise UnusableAnswerError(f"the answer ends inside the model's reasoning; {NO_REASONING}")
    return answer[start:]


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt ends with a marker that opens reasoning, so that the answer begins inside it."""
    prompt = prompt.rstrip()
    return any(marker["opening"] and marker.end() == len(prompt) for marker in MARKERS.finditer(prompt))


def has_reasoning(answer: str) -> bool:
    """Whether an answer holds a marker of reasoning."""
    return MARKERS.search(answer) is not None


def began_in_reasoning(answer: str) -> bool:
    """Whether an answer closes reasoning that it did not open."""
    first = MARKERS.search(answer)
    return first is not None and first["closing"] is not None


def framed(text: str) -> str:
    """Return what stands inside the last `<answer>` of a text; the whole text where there is none."""
    opening = None
    for frame in FRAMES.finditer(text):
        if not frame[1]:
            opening = frame
    if opening is not None:
        text = text[opening.end() :]
        text = text[: next((frame.start() for frame in FRAMES.finditer(text)), len(text))]
    return FRAMES.sub("", text)


def without_special_tokens(text: str) -> str:
    """Return the first turn of a text without the tokens of a chat format."""
    for turn in TURN_ENDS.split(text):
        turn = GAP.sub("", SPECIALS.sub("\0", turn)).strip()
        if turn := FIRST_ROLE.sub("", turn):
            return turn
    return ""


def refuse_no_caption(text: str, prompt: str = "", min_words: int = 3, truncated: bool = False):
    """Check that a text describes something.

    Raises:
        UnusableAnswerError: it talks about its task, declines, repeats the question or itself, or has too few words.
    """
    words = [word.casefold() for word in WORDS.findall(text)]
    if ABOUT_THE_USER.search(text) or (truncated and TO_ITSELF.search(text)):
        raise UnusableAnswerError(f"reasoning, not a caption; {NO_REASONING}")
    if len(words) <= SHORT_ENOUGH_TO_DECLINE and DECLINES.search(text):
        raise UnusableAnswerError(f"the model declines: {quoted(text)}")
    if len(words) < min_words:
        raise UnusableAnswerError(f"an answer of {len(words)} words, {quoted(text)}; --min_words is {min_words}")
    question = [word.casefold() for word in WORDS.findall(prompt)]
    if 0 < len(question) <= len(words) and all(word == question[i % len(question)] for i, word in enumerate(words)):
        raise UnusableAnswerError(f"the answer only repeats the question: {quoted(text)}")
    if looping(words):
        raise UnusableAnswerError(f"the answer only repeats itself: {quoted(text[-80:])}")


def looping(words: list[str]) -> int:
    """Return how many words of a text are one phrase repeated three times or more; 0 if this is a small part of it.

    A loop counts where nothing else is said, or where it has at least 8 words and 40 % of all. (Of 6,239 captions of
    LLaVA one does so, rightly: "a birdhouse, a bird, a birdhouse, a bird ..."; no other has a loop at all.)
    """
    words = [word for word in words if not word.isdigit()] or words  # "1. a cat 2. a cat 3. a cat"
    longest = 0
    for period in range(1, min(LONGEST_PHRASE, len(words) // 3) + 1):
        same = 0
        for word, before in zip(words[period:], words):
            same = same + 1 if word == before else 0
            if same >= 2 * period:
                longest = max(longest, same + period)
    return longest if longest == len(words) or longest >= max(8, 0.4 * len(words)) else 0


def quoted(text: str) -> str:
    """Return the beginning of a text for an error message."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")


__all__ = ["UnusableAnswerError", "began_in_reasoning", "caption_in", "has_reasoning", "opens_reasoning"]
