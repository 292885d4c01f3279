"""A SentencePiece model file, such as LLaMA's `tokenizer.model`.

By default SentencePiece adds a space before the first word when encoding and removes it when
decoding, which breaks continuations of a prompt, and may normalize characters (NFKC). Both are
switched off in memory, so that every token has fixed bytes and `decode(encode(text)) == text`; the
pieces and their ids are unchanged. A model without byte fallback cannot encode unknown characters:
see `unknown`. (The module's name ends in _ because the library has the same name.)
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from holo_cli.data.tokenizers.base import FILE, Tokenizer, append_specials, to_base64
from holo_cli.errors import DataError
from holo_cli.files import atomic_write_bytes, atomic_write_json

SPACE = "▁"  # a space in the model's pieces
MODEL_FILE = "tokenizer.model"


class SentencePieceTokenizer(Tokenizer):
    """The ids of the model; special tokens follow its last piece."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, specials: Mapping[str, int] | None = None) -> None:
        """`model`: the content of a .model file. DataError if it is invalid."""
        import sentencepiece

        proto = import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
        damaged: type[Exception] = import_module("google.protobuf.message").DecodeError
        try:
            proto.ParseFromString(model)
            proto.normalizer_spec.add_dummy_prefix = False
            proto.normalizer_spec.remove_extra_whitespaces = False
            proto.normalizer_spec.name = "identity"
            proto.normalizer_spec.precompiled_charsmap = b""
            library = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        except (damaged, RuntimeError) as error:
            raise DataError("This is not a SentencePiece model file.") from error
        if library.piece_size() == 0:
            raise DataError("This SentencePiece model file has no pieces.")
        self._model = model
        self._library = library
        self.ordinary = int(library.piece_size())
        self.specials = append_specials(self.ordinary, (), specials)
        self._table = [self._piece_bytes(i) for i in range(self.ordinary)]
        self._byte_ids = {self._table[i]: i for i in range(self.ordinary) if library.is_byte(i)}

    def _piece_bytes(self, token: int) -> bytes:
        piece: str = self._library.id_to_piece(token)
        if self._library.is_control(token):
            return b""
        if self._library.is_unknown(token):
            return "\ufffd".encode()
        if self._library.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode("utf-8")

    def with_specials(self, names: Iterable[str]) -> SentencePieceTokenizer:
        specials = append_specials(self.ordinary, names, self.specials)
        return SentencePieceTokenizer(self._model, specials)

    def _encode(self, text: str) -> list[int]:
        if SPACE not in text or len(self._byte_ids) < 256:
            # what is unknown is left out of a prompt, and refused in a set
            return [i for i in self._library.encode(text) if i != self._library.unk_id()]
        # a literal "▁" in the text is encoded as bytes, because as a piece it means a space
        escaped = [self._byte_ids[bytes([b])] for b in SPACE.encode("utf-8")]
        first, *others = [self._library.encode(part) for part in text.split(SPACE)]
        return first + [i for part in others for i in (*escaped, *part)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def unknown(self, text: str) -> list[str]:
        if len(self._byte_ids) == 256:
            return []
        lost = self._library.unk_id()
        return [c for c in sorted(set(text)) if c == SPACE or lost in self._library.encode(c)]

    def _bytes(self, token: int) -> bytes:
        return self._table[token]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": to_base64(self._model), "specials": self.specials}

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], folder: Path | None = None
    ) -> SentencePieceTokenizer:
        """Rebuild from `to_dict`, or from the files that `save` wrote to `folder`."""
        if "model" in data:
            return cls(base64.b64decode(data["model"]), data["specials"])
        path = (folder or Path()) / MODEL_FILE
        model = path.read_bytes()
        if hashlib.sha256(model).hexdigest() != data["model_sha256"]:
            raise DataError(f"{path} is not the tokenizer that this set was prepared with.")
        return cls(model, data["specials"])

    def save(self, folder: Path) -> Path:
        """Write `tokenizer.model`, and a `tokenizer.json` that refers to it."""
        atomic_write_bytes(folder / MODEL_FILE, self._model)
        reference = {
            "holo": 1,
            "kind": self.kind,
            "model_sha256": hashlib.sha256(self._model).hexdigest(),
            "specials": self.specials,
        }
        path = folder / FILE
        atomic_write_json(path, reference)
        return path
