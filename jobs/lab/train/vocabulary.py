"""vidray-demo's tokenizer.json: byte-level BPE in which every word of its world is one token."""

from itertools import product

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from jobs.demo.questions import GRAIN, STEPS
from jobs.demo.world import COLOURS, DIRECTIONS, KINDS
from pipeline.model.tokenizer import Tokenizer as ModelTokenizer
from pipeline.tasks.tasks import CAPTION_IMAGE, CAPTION_VIDEO

CONTROL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"),
    *("<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
WORDS = Regex(r" ?[A-Za-z]+|\d+| ?[^\sA-Za-z\d]+|\s+")
MAX_SIZE = 1024


def train_tokenizer() -> str:
    """The text of tokenizer.json, learnt from every sentence the world can say."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_SIZE,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    inner.train_from_iterator(sentences(), trainer)
    inner.add_special_tokens([AddedToken(token, special=True) for token in CONTROL])
    return inner.to_str(pretty=True)


def sentences() -> list[str]:
    """Every word in every place it can stand: at the start of a text and after a space."""
    names = [f"the {colour} {kind}" for colour, kind in product(COLOURS, KINDS)]
    single = [*COLOURS, *KINDS, *DIRECTIONS, "yes", "no", "nothing", "not there", "it stays still"]
    moves = [f"moves {direction}" for direction in DIRECTIONS] + ["stays still"]
    events = ["", " and appears", " and disappears"]
    captions = [f"A red star {move}{event}. A" for move, event in product(moves, events)]
    asks = [
        *(CAPTION_VIDEO, CAPTION_IMAGE, "How many shapes are there?", "What appears first?"),
        *("What colour is the star?", "What color is the star?", "What shape is the red one?"),
        *("Which way does the red star move?", "Is there a red star?", "Is there an orange star?"),
        *("What disappears first?", "What is left of the red star at the start?"),
        *("Find the red star.", "Nothing is there."),
    ]
    layout = ["system\nYou are a helpful assistant.", "user\n", "assistant\n", "\n"]
    numbers = [str(min(value, STEPS - 1)) for value in range(0, STEPS + 1, GRAIN)]
    boxes = [f"({number},{number}),({number},{number})" for number in numbers]
    return [*names, *single, *captions, *asks, *layout, *boxes, *"0123"]


def load_tokenizer() -> ModelTokenizer:
    """A freshly trained one, as the pipeline reads it."""
    return ModelTokenizer(train_tokenizer())


def encode_marked(tokenizer: ModelTokenizer, text: str) -> list[int]:
    """Ids of an answer in which the world's own control tokens are meant as such."""
    ids: list[int] = []
    while text:
        found = [(text.find(token), token) for token in CONTROL if token in text]
        start, token = min(found, default=(len(text), ""))
        ids += tokenizer.encode_text(text[:start]) if start else []
        ids += [tokenizer.control_id(token)] if token else []
        text = text[start + len(token) :]
    return ids
