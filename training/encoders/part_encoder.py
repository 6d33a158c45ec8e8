"""An encoder as embedding actors use it: made in the actor from a folder in storage, then fed parts of features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from cluster.errors import ConfigError
from cluster.storage.model_folders import Manifest, fetch_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32
from training.encoders.tokens.features import read_features


@dataclass(frozen=True)
class MakeEncoder:
    """Loads the model; called once in each actor."""

    store: Store
    files: Manifest
    prefix: str
    threads: int
    gpu: bool
    bfloat16: bool
    budget_tokens: int | None

    def __call__(self) -> Callable[[Store, str, Callable[[int], None]], F32]:
        """The part encoder.

        Raises:
            ConfigError: bfloat16 on a CPU that has no instructions for it.
        """
        import torch

        from training.encoders.compute.packed import cpu_has_bfloat16, pack_linears
        from training.encoders.load import load_encoder

        if self.bfloat16 and not self.gpu and not cpu_has_bfloat16():
            raise ConfigError(
                'mining.embedding_precision = "bfloat16", but a CPU that embeds has no bfloat16 instructions '
                "(AVX512_BF16 or AMX), so it would be slower than float32 and less exact; set it to "
                '"float32", or embed on other nodes'
            )
        torch.set_num_threads(self.threads)
        encoder = load_encoder(fetch_folder(self.store, self.files, self.prefix))
        if self.gpu:
            encoder.to("cuda")
        else:
            pack_linears(encoder, torch.bfloat16 if self.bfloat16 else torch.float32)

        one_at_a_time = Lock()  # other threads read and write parts meanwhile

        def encode(store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
            features = read_features(store, path)
            with one_at_a_time:
                return encoder.encode(features, budget_tokens=self.budget_tokens, bfloat16=self.bfloat16, on_progress=on_progress)

        return encode
