"""The tokenizer of `nano`: BPE with byte fallback, special tokens numbered as in T5."""

import json
import string
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SENTINELS = tuple(f"<extra_id_{number}>" for number in range(100))
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def train_tokenizer(texts: Iterable[str], pieces: int) -> PreTrainedTokenizerFast:
    """Learn about `pieces` pieces; 3 special tokens, 256 bytes and 100 sentinels come on top.

    Runs of white space become one space, as in T5. All other text survives a round trip.
    """
    learner = Tokenizer(models.BPE())
    _shape(learner)
    trainer = BpeTrainer(
        vocab_size=pieces,
        initial_alphabet=list(string.printable.strip()),
        limit_alphabet=100,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    ordered = sorted(learned["vocab"], key=lambda piece: int(learned["vocab"][piece]))
    vocab = {piece: number for number, piece in enumerate((PAD, EOS, UNK, *_BYTES, *ordered))}
    merges = [(first, second) for first, second in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=UNK, byte_fallback=True))
    _shape(tokenizer)
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in (PAD, EOS, UNK, *SENTINELS)]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=list(SENTINELS),
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def _shape(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.NFC()]
    )
    # Punctuation stands alone, so that a name is the same pieces before a colon and inside a line.
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Metaspace(prepend_scheme="first"), split.Punctuation("isolated")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
