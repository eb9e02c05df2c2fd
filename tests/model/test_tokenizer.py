from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from model import pretrained
from model.pretrained import copy_tokenizer
from model.tokenizer import SPECIAL_TOKENS, Tokenizer
from model.transformer import Transformer
from tests.model.conftest import TEXTS, small_config

HARD = [
    *TEXTS,
    "",
    " ",
    "\n\n\t x  y",
    "12345678901234567890",
    "e\u0301 é ﬁ １２ ㍿ \u200b\u00a0",
    "日本語とかな、한국어, العربية, हिन्दी",
    "\x00\x07\ufffd\U0010ffff",
    "a<|im_end|>b<|endoftext|>c<|pad|>",
]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 12 + 30? \n"},
    {"role": "assistant", "content": "\n 42"},
    {"role": "user", "content": "中文呢?"},
    {"role": "assistant", "content": ""},
]


@pytest.mark.parametrize("text", HARD)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(HARD) == [tokenizer.encode(text) for text in HARD]


def test_size_and_special_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocabulary_size <= 600
    special = [
        tokenizer.end_of_text_id,
        tokenizer.start_of_turn_id,
        tokenizer.end_of_turn_id,
        tokenizer.pad_id,
    ]
    assert special == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="vocabulary_size is 200; expected at least 260"):
        Tokenizer.train(TEXTS, 200)


def test_text_never_becomes_a_control_token(tokenizer: Tokenizer) -> None:
    assert not set(tokenizer.encode("<|im_start|>x<|im_end|><|endoftext|><|pad|>")) & {0, 1, 2, 3}
    ids, _ = tokenizer.encode_chat([{"role": "user", "content": "<|im_end|>"}])
    assert ids.count(tokenizer.end_of_turn_id) == 1


def test_digits_stand_alone_and_chinese_is_compressed(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("1234567890")) == 10
    chinese = TEXTS[2]
    assert len(tokenizer.encode(chinese)) < len(chinese)
    longest = max(tokenizer.backend.get_vocab(), key=len)
    assert len(longest) <= 16


def test_training_is_repeatable() -> None:
    first, second = Tokenizer.train(TEXTS * 3, 400), Tokenizer.train(TEXTS * 3, 400)
    assert first.backend.to_str() == second.backend.to_str()


@pytest.mark.parametrize("beside_a_model", [False, True])
def test_transformers_gives_the_same_ids(
    tokenizer: Tokenizer, tmp_path: Path, beside_a_model: bool
) -> None:
    tokenizer.save(tmp_path)
    if beside_a_model:
        pretrained.save(Transformer(small_config()), tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in HARD[:-1]:
        assert theirs.encode(text) == tokenizer.encode(text)
        assert theirs.decode(theirs.encode(text)) == text
    assert theirs(HARD[-1], split_special_tokens=True).input_ids == tokenizer.encode(HARD[-1])
    assert theirs.eos_token_id == tokenizer.end_of_text_id
    assert theirs.pad_token_id == tokenizer.pad_id
    assert theirs.bos_token_id is None


@pytest.mark.parametrize("prompt", [False, True])
def test_chat_is_transformers_template(tokenizer: Tokenizer, tmp_path: Path, prompt: bool) -> None:
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    found = theirs.apply_chat_template(
        CHAT, add_generation_prompt=prompt, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = tokenizer.encode_chat(CHAT, add_generation_prompt=prompt)
    assert ids == found["input_ids"]
    assert mask == found["assistant_masks"]


def test_the_mask_marks_replies_and_their_ends(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.encode_chat(CHAT)
    marked = [token for token, written in zip(ids, mask, strict=True) if written]
    end = tokenizer.end_of_turn_id
    assert marked == [*tokenizer.encode("42"), end, end]
    question, _ = tokenizer.encode_chat(CHAT[:2], add_generation_prompt=True)
    assert ids[: len(question)] == question  # what training saw is what sampling continues


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode_batch(HARD) == tokenizer.encode_batch(HARD)
    assert again.stop_ids == tokenizer.stop_ids == [2, 0]
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path / "elsewhere")
    stripped = (tmp_path / "tokenizer.json").read_text().replace("<|im_end|>", "<|finis|>")
    (tmp_path / "tokenizer.json").write_text(stripped)
    without_turns = Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match=r"no '<\|im_end\|>'; expected"):
        without_turns.encode_chat(CHAT)


def test_anothers_tokenizer_ends_texts_with_its_own_token_and_has_no_turns(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """As Llama's: enough to train on, not to chat with in our template."""
    vocabulary = {
        token: number
        for token, number in tokenizer.backend.get_vocab().items()
        if token not in SPECIAL_TOKENS
    }
    numbers = {token: i for i, token in enumerate(sorted(vocabulary, key=vocabulary.__getitem__))}
    theirs = tokenizers.Tokenizer(models.BPE(numbers, []))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    theirs.add_special_tokens(["</s>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"no '<\|endoftext\|>', and no tokenizer_config.*names"):
        Tokenizer.load(tmp_path)
    for said in ("</s>", {"content": "</s>", "lstrip": False}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": said}))
        found = Tokenizer.load(tmp_path)
        assert found.stop_ids == [found.end_of_text_id] == [theirs.token_to_id("</s>")]
        assert found.pad_id == found.end_of_text_id
        assert found.decode(found.encode("Paris </s>")) == "Paris </s>"
        with pytest.raises(ValueError, match=r"the tokenizer has no '<\|im_"):
            found.encode_chat([{"role": "user", "content": "Hello"}])
    copy_tokenizer(tmp_path, tmp_path / "model")
    written = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert written["eos_token_id"] == found.stop_ids
