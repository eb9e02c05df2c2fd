"""Byte-level BPE with special tokens and the chat template, saved so that transformers loads it.

Text is split as Qwen2 and Qwen3 split theirs (GPT-4's pattern with digits one by one), so engines
that know Qwen know our tokens. Text given to `encode` never becomes a control token: a page or a
user that writes `<|im_end|>` gets its characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN, PAD)

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LONGEST_TOKEN_BYTES = 16
"""A run of Chinese is one piece to the pattern: without a limit whole sentences become tokens."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|im_start|>assistant\\n' -}}
{%- generation -%}{{- message['content'] | trim + '<|im_end|>' -}}{%- endgeneration -%}
{{- '\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Tokenizer:
    """Text to ids and back. Of one trained here, ids 0 to 3 are the special tokens, and 256 more
    the single bytes. Another's ends documents with a token of its own, and may have no turns.
    """

    def __init__(self, backend: tokenizers.Tokenizer, end_of_text: str = END_OF_TEXT) -> None:
        self.backend, self.end_of_text = backend, end_of_text
        backend.encode_special_tokens = True  # text stays text; turns are put together by id
        self.end_of_text_id = self._special(end_of_text)
        pad = backend.token_to_id(PAD)
        self.pad_id = self.end_of_text_id if pad is None else int(pad)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
        """Learn `vocabulary_size` tokens, special ones included, from texts (streamed once)."""
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocabulary_size < smallest:
            raise ValueError(
                f"vocabulary_size is {vocabulary_size}; expected at least {smallest}: "
                f"256 bytes and {len(SPECIAL_TOKENS)} special tokens"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            max_token_length=LONGEST_TOKEN_BYTES,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """From a folder with `tokenizer.json`; one that ends no text is a ValueError."""
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder} has no tokenizer.json; expected a folder with a tokenizer")
        backend = tokenizers.Tokenizer.from_file(str(path))
        known = backend.token_to_id(END_OF_TEXT) is not None
        return cls(backend, END_OF_TEXT if known else _end_of_sequence(path.parent))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        settings = {
            # Not Qwen2Tokenizer: that class would normalise text to NFC, and we keep every byte.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": self.end_of_text,
            "pad_token": PAD if self.backend.token_to_id(PAD) is not None else self.end_of_text,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": "left",
        }
        (folder / "tokenizer_config.json").write_text(
            json.dumps(settings, indent=2) + "\n", encoding="utf-8"
        )
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def start_of_turn_id(self) -> int:
        """A ValueError where the tokenizer has no turns of our kind; so the next."""
        return self._special(START_OF_TURN)

    @property
    def end_of_turn_id(self) -> int:
        return self._special(END_OF_TURN)

    @property
    def stop_ids(self) -> list[int]:
        """Where a reply ends: the end of the turn, if there are turns, or of the text."""
        turn = self.backend.token_to_id(END_OF_TURN)
        return [self.end_of_text_id] if turn is None else [int(turn), self.end_of_text_id]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; no special token is added or recognised."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, in parallel threads of the library (RAYON_NUM_THREADS)."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids: bytes that are no UTF-8 become U+FFFD, special tokens are skipped or not."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False
    ) -> tuple[list[int], list[int]]:
        """(ids, mask): the chat template applied; 1 marks what the assistant wrote, with its end.

        The same ids as transformers' `apply_chat_template`, except that a special token spelled out
        in a message stays text here.
        """
        ids: list[int] = []
        mask: list[int] = []
        newline = self.encode("\n")
        for message in messages:
            role, content = message["role"], str(message["content"]).strip()
            body = [*self.encode(content), self.end_of_turn_id]
            head = [self.start_of_turn_id, *self.encode(f"{role}\n")]
            ids += [*head, *body, *newline]
            written = 1 if role == "assistant" else 0
            mask += [0] * len(head) + [written] * len(body) + [0] * len(newline)
        if add_generation_prompt:
            head = [self.start_of_turn_id, *self.encode("assistant\n")]
            ids += head
            mask += [0] * len(head)
        return ids, mask

    def _special(self, token: str) -> int:
        found = self.backend.token_to_id(token)
        if found is None:
            raise ValueError(
                f"the tokenizer has no {token!r}; expected {', '.join(SPECIAL_TOKENS[:3])} among "
                "its special tokens, as in Qwen's ChatML"
            )
        return int(found)


def _end_of_sequence(folder: Path) -> str:
    """The token that another's tokenizer_config.json ends texts with."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    token = settings.get("eos_token")
    found = token.get("content") if isinstance(token, dict) else token
    if not isinstance(found, str):
        raise ValueError(
            f"the tokenizer in {folder} has no {END_OF_TEXT!r}, and no tokenizer_config.json names "
            "an eos_token: expected one, for documents to end with"
        )
    return found
