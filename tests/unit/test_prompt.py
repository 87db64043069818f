"""The chat layout: the ids of the strings the published template writes."""

import pytest

from pipeline.families.qwen2_vl.chat import ChatLayout, Medium
from tests.qwen_tokenizer import qwen, qwen_library

QWEN = qwen()
LIBRARY = qwen_library()  # reads control tokens in its text
IMAGE, VIDEO = Medium.IMAGE, Medium.VIDEO
PADS = {IMAGE: QWEN.ids.image_pad, VIDEO: QWEN.ids.video_pad}

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER, ASSISTANT = "<|im_start|>user\n", "<|im_start|>assistant\n"
END = "<|im_end|>\n"
IMAGE_TEXT = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO_TEXT = "<|vision_start|><|video_pad|><|vision_end|>"


def whole_prompt(layout: ChatLayout, media: list[Medium], question: str) -> list[int]:
    """Ids of a prompt as the template leaves it: one pad for each medium."""
    ids: list[int] = []
    for medium, before in zip(media, layout.before_media(media), strict=True):
        ids += [*before, PADS[medium]]
    return [*ids, *layout.question(question)]


@pytest.mark.parametrize(
    ("media", "numbered", "shown"),
    [
        ([VIDEO], False, VIDEO_TEXT),
        ([IMAGE], False, IMAGE_TEXT),
        ([IMAGE, VIDEO], False, IMAGE_TEXT + VIDEO_TEXT),
        ([VIDEO, VIDEO], False, VIDEO_TEXT + VIDEO_TEXT),
        ([VIDEO], True, f"Video 1: {VIDEO_TEXT}"),
        (
            [VIDEO, IMAGE, VIDEO],
            True,
            f"Video 1: {VIDEO_TEXT}Picture 1: {IMAGE_TEXT}Video 2: {VIDEO_TEXT}",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("question", ["What happens?", "\n\n  Où ?", "1234 🎬"])
def test_a_prompt_has_the_ids_of_the_template(media, numbered, shown, question):
    expected = f"{SYSTEM}{USER}{shown}{question}{END}{ASSISTANT}"
    ids = whole_prompt(ChatLayout(QWEN, numbered=numbered), media, question)
    assert ids == LIBRARY.encode(expected).ids


@pytest.mark.parametrize("question", ["Hello", "\nHello"])
def test_a_prompt_without_media_has_the_ids_of_the_template(question):
    expected = f"{SYSTEM}{USER}{question}{END}{ASSISTANT}"
    assert list(ChatLayout(QWEN).text_only(question)) == LIBRARY.encode(expected).ids


def test_a_follow_up_continues_the_same_conversation():
    layout, answer = ChatLayout(QWEN), "A red car."
    ids = whole_prompt(layout, [VIDEO], "What is it?")
    ids += [*QWEN.encode_text(answer), *layout.follow_up("Which colour?")]
    expected = (
        f"{SYSTEM}{USER}{VIDEO_TEXT}What is it?{END}{ASSISTANT}{answer}{END}"
        f"{USER}Which colour?{END}{ASSISTANT}"
    )
    assert ids == LIBRARY.encode(expected).ids


def test_the_operator_may_set_the_system_prompt():
    layout = ChatLayout(QWEN, system="Be brief.")
    expected = f"<|im_start|>system\nBe brief.{END}{USER}<|vision_start|>"
    assert list(layout.before_media([VIDEO])[0]) == LIBRARY.encode(expected).ids


def test_what_stands_before_the_video_does_not_depend_on_what_follows():
    layout = ChatLayout(QWEN, numbered=True)
    assert layout.before_media([VIDEO])[0] == layout.before_media([VIDEO, IMAGE])[0]


@pytest.mark.parametrize("word", ["<|im_end|>", "<|video_pad|>", "<|im_start|>system\n"])
def test_control_tokens_typed_by_a_user_never_add_one(word):
    layout = ChatLayout(QWEN)
    control = set(range(151_643, 151_669))
    plain = [token for token in whole_prompt(layout, [VIDEO], "Hi") if token in control]
    typed = whole_prompt(layout, [VIDEO], f"Hi{word}{word}")
    assert [token for token in typed if token in control] == plain
