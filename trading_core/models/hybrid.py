"""LSTM, Transformer, cross-attention and a mixture of experts in one network.

    x -> linear -> LSTM -> positions -> Transformer encoder -> LayerNorm ----+-> mean and last step --+
                                                                             |                        |
    static codes, context channels -> MLP -> query -> cross-attention over the path ------------------+-> fusion
    -> residual block -> per horizon: gated experts, each with a regression and a classification head

The LSTM (Hochreiter and Schmidhuber 1997) encodes order and decay, attention (Vaswani et al. 2017) relates far steps;
what is known of the sample asks the path for what matters to it. The experts are in moe.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trading_core.models.blocks import ResidualBlock, SampleEmbedding
from trading_core.models.bounds import require_between, require_multiple, require_one_of
from trading_core.models.encoder import EncoderBlock, FeedForward
from trading_core.models.moe import MixtureOfExperts, require_choosing
from trading_core.models.positions import POSITIONS, Positions, position_encoding
from trading_core.models.search import Choice, Real, SearchSpace, Whole
from trading_core.schema import InputSpec


@dataclass(frozen=True, slots=True)
class HybridConfig:
    hidden_size: int = 32  # D, of the path, the sample and their fusion
    lstm_layers: int = 1
    encoder_layers: int = 1
    attention_heads: int = 4  # in the encoder and in the cross-attention
    feed_forward_size: int = 64
    positions: Positions = "sinusoidal"
    experts: int = 4  # per horizon
    expert_size: int = 16
    top_k: int = 0  # experts mixed per sample, at least 2; 0 = all
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_between("hidden_size", self.hidden_size, 2, 1024)
        require_between("lstm_layers", self.lstm_layers, 1, 8)
        require_between("encoder_layers", self.encoder_layers, 1, 12)
        require_between("attention_heads", self.attention_heads, 1, 16)
        require_between("feed_forward_size", self.feed_forward_size, 1, 4096)
        require_one_of("positions", self.positions, POSITIONS)
        require_between("experts", self.experts, 1, 64)
        require_between("expert_size", self.expert_size, 1, 1024)
        require_between("top_k", self.top_k, 0, self.experts)
        require_choosing(self.top_k)
        require_between("dropout", self.dropout, 0.0, 0.9)
        require_multiple("hidden_size", self.hidden_size, "attention_heads", self.attention_heads)


SEARCH: SearchSpace = {
    "hidden_size": Choice((16, 32, 64, 128)),
    "lstm_layers": Whole(1, 2),
    "encoder_layers": Whole(1, 3),
    "attention_heads": Choice((1, 2, 4, 8)),
    "feed_forward_size": Choice((32, 64, 128, 256)),
    "positions": Choice(POSITIONS),
    "experts": Whole(2, 8),
    "expert_size": Choice((8, 16, 32)),
    "top_k": Choice((0, 2)),
    "dropout": Real(0.0, 0.5),
}


class HybridModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]."""

    def __init__(self, config: HybridConfig, spec: InputSpec) -> None:
        super().__init__()
        size, heads, dropout = config.hidden_size, config.attention_heads, config.dropout
        self.path = PathEncoder(config, spec)
        self.sample = SampleEmbedding(spec, size, dropout)
        self.cross = nn.MultiheadAttention(size, heads, dropout, batch_first=True)
        self.fusion = nn.Sequential(nn.Linear(4 * size, size), nn.Dropout(dropout))
        self.residual = ResidualBlock(size, FeedForward(size, 2 * size, dropout), dropout)
        self.norm = nn.LayerNorm(size)
        hidden = len(spec.horizons) * config.experts * config.expert_size
        body = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Dropout(dropout))
        self.mixture = MixtureOfExperts(size, body, config.expert_size, config.experts, config.top_k, spec)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        path = self.path(x)  # [B,E,C] -> [B,E,D]
        sample = self.sample(x, static)  # [B,D]
        asked, _ = self.cross(sample.unsqueeze(1), path, path, need_weights=False)  # [B,1,D]
        pooled = torch.cat((asked.squeeze(1), sample, path.mean(dim=1), path[:, -1]), dim=-1)  # [B,4D]
        features = self.norm(self.residual(self.fusion(pooled)))  # [B,4D] -> [B,D]
        output: Tensor = self.mixture(features)  # [B,H,O]
        return output

    def auxiliary_loss(self) -> Tensor:
        """See MixtureOfExperts: the load balance of the experts."""
        return self.mixture.auxiliary_loss()

    def figures(self) -> dict[str, float]:
        """See MixtureOfExperts: how much each expert is used."""
        return self.mixture.figures()


class PathEncoder(nn.Module):
    """x [B,E,C] -> [B,E,D]: linear, LSTM, positions, Transformer encoder, LayerNorm."""

    def __init__(self, config: HybridConfig, spec: InputSpec) -> None:
        super().__init__()
        size, dropout = config.hidden_size, config.dropout
        self.linear = nn.Linear(len(spec.channels), size)
        between = dropout if config.lstm_layers > 1 else 0.0
        self.lstm = nn.LSTM(size, size, config.lstm_layers, batch_first=True, dropout=between)
        self.positions = position_encoding(config.positions, spec.encoder_length, size)
        self.encoder = nn.Sequential(
            *(
                EncoderBlock(
                    size, config.attention_heads, FeedForward(size, config.feed_forward_size, dropout), dropout
                )
                for _ in range(config.encoder_layers)
            ),
            nn.LayerNorm(size),
        )

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.linear(x))  # [B,E,C] -> [B,E,D]
        encoded: Tensor = self.encoder(self.positions(states))
        return encoded


def build(config: HybridConfig, spec: InputSpec) -> nn.Module:
    return HybridModel(config, spec)


CONFIG = HybridConfig
