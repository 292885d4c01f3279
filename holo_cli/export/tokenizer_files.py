"""A tokenizer of holo as the `tokenizer.json` that the `tokenizers` library reads, and back.

Where a foreign file comes in, its own mark at the end of a text becomes holo's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.tokenizers.base import END
from holo_cli.files import atomic_write_json

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> bool:
    """Write tokenizer.json as the `tokenizers` library reads it; False for kinds it cannot express.

    An alphabet of characters becomes a BPE without merges, which likewise leaves out what it
    does not know.
    """
    from holo_cli.data.tokenizers.bpe import JsonTokenizer
    from holo_cli.data.tokenizers.char import CharTokenizer

    if isinstance(tokenizer, JsonTokenizer):
        tokenizer.save(folder)
        return True
    if not isinstance(tokenizer, CharTokenizer):
        return False
    by_id = sorted(tokenizer.specials.items(), key=lambda item: item[1])
    vocabulary = {character: i for i, character in enumerate(tokenizer.characters)}
    library = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": name, **FLAGS, "special": True} for name, i in by_id],
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    atomic_write_json(folder / "tokenizer.json", library, indent=None)
    return True


def with_own_end(data: dict[str, Any], end: int | None) -> dict[str, Any]:
    """A tokenizer.json whose token `end` is called <|end|>: the mark between documents keeps the
    row that its model learned. As it is where it has that name already, or no such token."""
    added = data.get("added_tokens") or []
    if any(token.get("content") == END for token in added):
        return data
    name = next((token["content"] for token in added if token.get("id") == end), None)
    model = dict(data.get("model") or {})
    vocabulary = model.get("vocab")
    if name is None and isinstance(vocabulary, dict):
        name = next((piece for piece, i in vocabulary.items() if i == end), None)
        if name is not None:
            added = [*added, {"id": end, "content": name, **FLAGS, "special": True}]
    if name is None:
        return data
    if isinstance(vocabulary, dict):
        model["vocab"] = {END if piece == name else piece: i for piece, i in vocabulary.items()}
    elif isinstance(vocabulary, list):  # Unigram: pieces with their scores, by id
        model["vocab"] = [[END, *row[1:]] if row[0] == name else row for row in vocabulary]
    if model.get("unk_token") == name:
        model["unk_token"] = END
    renamed = [
        token | {"content": END, "special": True} if token["content"] == name else token
        for token in added
    ]
    return data | {"added_tokens": renamed, "model": model}
