"""Networks over sequences: convolutions, recurrent ones, attention, and those of transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import nn

from tests.exports.architecture import Architecture, collected

Built = tuple[nn.Module, tuple[Any, ...]]

STEPS = 6


def signal(channels: int = 4, steps: int = 16) -> tuple[torch.Tensor]:
    return (torch.rand(1, channels, steps),)


def steps(width: int = 8) -> tuple[torch.Tensor]:
    return (torch.rand(1, STEPS, width),)


def tokens(vocabulary: int = 32) -> torch.Tensor:
    return torch.randint(0, vocabulary, (1, STEPS))


def conv_1d() -> Built:
    return nn.Sequential(
        nn.Conv1d(4, 8, 5, padding=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ), signal()


def temporal_convolutions() -> Built:
    class Causal(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.reach = 2 * dilation
            self.conv = nn.Conv1d(4, 4, 3, padding=self.reach, dilation=dilation)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x + F.relu(self.conv(x)[:, :, : -self.reach]))

    return nn.Sequential(*[Causal(2**i) for i in range(3)]), signal()


def wavenet() -> Built:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.ModuleList([nn.Conv1d(4, 4, 2, dilation=2**i) for i in range(2)])
            self.gates = nn.ModuleList([nn.Conv1d(4, 4, 2, dilation=2**i) for i in range(2)])
            self.last = nn.Conv1d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skipped = torch.zeros_like(x)
            for i, (filters, gates) in enumerate(zip(self.filters, self.gates, strict=True)):
                padded = F.pad(x, (2**i, 0))
                y = torch.tanh(filters(padded)) * torch.sigmoid(gates(padded))
                x, skipped = x + y, skipped + y
            return self.last(F.relu(skipped))

    return Gated(), signal()


def recurrent(kind: type[nn.RNNBase], **options: Any) -> Built:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = kind(4, 6, batch_first=True, **options)
            self.last = nn.Linear(6 * (2 if options.get("bidirectional") else 1), 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.cells(x)[0][:, -1])

    return Recurrent(), (torch.rand(1, 5, 4),)


def lstm_tagger() -> Built:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(32, 4)
            self.cells, self.last = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return F.log_softmax(self.last(self.cells(self.embedding(words))[0]), dim=-1)

    return Tagger(), (tokens(),)


def bag_of_embeddings() -> Built:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.last = nn.Embedding(32, 8), nn.Linear(8, 4)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.last(self.embedding(words).mean(dim=1))

    return Bag(), (tokens(),)


def recommender() -> Built:
    class Recommender(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(20, 8), nn.Embedding(30, 8)
            self.mlp = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))

        def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
            u, i = self.users(user), self.items(item)
            return torch.sigmoid((u * i).sum(dim=-1) + self.mlp(torch.cat([u, i], dim=-1))[:, 0])

    return Recommender(), (torch.tensor([3]), torch.tensor([7]))


def attention(masked: bool) -> Built:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(STEPS) if masked else None
            return self.heads(x, x, x, attn_mask=mask, need_weights=False)[0]

    return Attention(), steps()


def scaled_dot_product() -> Built:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projected = nn.Linear(8, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.projected(x).view(1, STEPS, 3, 2, 4).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return y.transpose(1, 2).reshape(1, STEPS, 8)

    return Causal(), steps()


def nano_gpt() -> Built:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
            self.attention, self.projected = nn.Linear(8, 24), nn.Linear(8, 8)
            self.mlp = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
            self.register_buffer("seen", torch.tril(torch.ones(STEPS, STEPS))[None, None])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, t, c = x.size()
            q, k, v = self.attention(self.norms[0](x)).split(8, dim=2)
            q, k, v = (y.view(b, t, 2, c // 2).transpose(1, 2) for y in (q, k, v))
            scores = (q @ k.transpose(-2, -1)) * (1.0 / 2.0)
            scores = scores.masked_fill(self.seen[:, :, :t, :t] == 0, float("-inf"))
            y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(b, t, c)
            x = x + self.projected(y)
            return x + self.mlp(self.norms[1](x))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(32, 8), nn.Embedding(STEPS, 8)
            self.block, self.norm = Block(), nn.LayerNorm(8)
            self.head = nn.Linear(8, 32, bias=False)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            x = self.words(words) + self.places(torch.arange(words.size(1)))
            return self.head(self.norm(self.block(x)))[:, [-1], :]

    return Gpt(), (tokens(),)


def encoder(activation: str, norm_first: bool) -> Built:
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, activation=activation, norm_first=norm_first, batch_first=True
    )
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), steps()


def encoder_decoder() -> Built:
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    return model, (torch.rand(1, 4, 8), torch.rand(1, 3, 8))


class Hidden(nn.Module):
    """A model of transformers, its first output alone."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.names, inputs, strict=True))
        return self.model(**named, return_dict=False)[0]


_SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 32,
    "attn_implementation": "eager",
}


def bert(kind: str, masked: bool) -> Built:
    config = getattr(transformers, f"{kind}Config")(
        **_SMALL, max_position_embeddings=16, pad_token_id=0, embedding_size=8
    )
    model = getattr(transformers, f"{kind}Model")(config)
    if not masked:
        return Hidden(model, "input_ids"), (tokens(),)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    return Hidden(model, "input_ids", "attention_mask"), (tokens(), mask)


def bert_classifier() -> Built:
    config = transformers.BertConfig(**_SMALL, max_position_embeddings=16, num_labels=3)
    model = transformers.BertForSequenceClassification(config)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    return Hidden(model, "input_ids", "attention_mask"), (tokens(), mask)


def distilbert() -> Built:
    config = transformers.DistilBertConfig(
        dim=8, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=32, max_position_embeddings=16,
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.DistilBertModel(config)
    return Hidden(model, "input_ids", "attention_mask"), (tokens(), torch.ones(1, STEPS).long())


def gpt2() -> Built:
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, vocab_size=32, n_positions=16, use_cache=False,
        attn_implementation="eager",
    )  # fmt: skip
    return Hidden(transformers.GPT2LMHeadModel(config), "input_ids"), (tokens(),)


def llama() -> Built:
    config = transformers.LlamaConfig(
        **_SMALL, num_key_value_heads=1, max_position_embeddings=16, use_cache=False
    )
    return Hidden(transformers.LlamaForCausalLM(config), "input_ids"), (tokens(),)


def t5_encoder() -> Built:
    config = transformers.T5Config(
        d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=32, use_cache=False
    )
    return Hidden(transformers.T5EncoderModel(config), "input_ids"), (tokens(),)


_CONVOLUTIONS: dict[str, Callable[[], Built]] = {
    "conv1d": conv_1d,
    "tcn": temporal_convolutions,
    "wavenet": wavenet,
}
_RECURRENT: dict[str, Callable[[], Built]] = {
    "rnn": partial(recurrent, nn.RNN),
    "rnn_relu": partial(recurrent, nn.RNN, nonlinearity="relu"),
    "lstm": partial(recurrent, nn.LSTM),
    "lstm_two_layers": partial(recurrent, nn.LSTM, num_layers=2),
    "lstm_bidirectional": partial(recurrent, nn.LSTM, bidirectional=True),
    "gru": partial(recurrent, nn.GRU),
    "gru_bidirectional": partial(recurrent, nn.GRU, bidirectional=True),
    "lstm_tagger": lstm_tagger,
}
_TRANSFORMERS: dict[str, Callable[[], Built]] = {
    "attention": partial(attention, False),
    "attention_causal": partial(attention, True),
    "sdpa_causal": scaled_dot_product,
    "nanogpt": nano_gpt,
    "encoder_relu": partial(encoder, "relu", False),
    "encoder_gelu_prenorm": partial(encoder, "gelu", True),
    "encoder_decoder": encoder_decoder,
    "bert": partial(bert, "Bert", False),
    "bert_masked": partial(bert, "Bert", True),
    "bert_classifier": bert_classifier,
    "roberta": partial(bert, "Roberta", False),
    "albert": partial(bert, "Albert", True),
    "distilbert": distilbert,
    "gpt2": gpt2,
    "llama": llama,
    "t5_encoder": t5_encoder,
}
_EMBEDDINGS: dict[str, Callable[[], Built]] = {
    "embedding_bag": bag_of_embeddings,
    "recommender": recommender,
}

ARCHITECTURES: list[Architecture] = [
    *collected("convolutions over time", _CONVOLUTIONS),
    *collected("recurrent", _RECURRENT),
    *collected("transformers", _TRANSFORMERS),
    *collected("embeddings", _EMBEDDINGS),
]
