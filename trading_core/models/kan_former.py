"""A Transformer of Kolmogorov-Arnold layers over a bidirectional LSTM, with instance normalisation of named channels.

    x -> RevIN of `revin_channels` -> linear -> bidirectional LSTM -> SwiGLU -> positions
      -> Transformer encoder whose feed-forward is KAN -> LayerNorm -> mean and last step --+
    static codes, context channels, RevIN's mean and log-std -> MLP ------------------------+-> fusion
      -> residual SwiGLU -> per horizon: gated experts of two KAN layers, the second one the regression head and the
         classification head

KAN: kan.py (Liu et al. 2024). RevIN: revin.py (Kim et al. 2022). SwiGLU: Shazeer 2020. Experts: moe.py. The LSTM reads the
window backwards too: all of it is known at the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trading_core.models.blocks import ResidualBlock, SampleEmbedding, SwiGLU
from trading_core.models.bounds import require_between, require_multiple, require_one_of
from trading_core.models.encoder import EncoderBlock
from trading_core.models.kan import GroupedKANLayer, KANLayer
from trading_core.models.moe import MixtureOfExperts, require_choosing
from trading_core.models.positions import POSITIONS, Positions, position_encoding
from trading_core.models.revin import RevIN
from trading_core.models.search import Choice, Real, SearchSpace, Whole
from trading_core.schema import MASK_SUFFIX, InputSpec

ALL = "all"


@dataclass(frozen=True, slots=True)
class KANFormerConfig:
    """`revin_channels`: names with spaces between them, "" for none, or "all" for all that are neither masks nor context.

    RevIN takes a channel's level and volatility out of each window and hands them on beside the path. That suits
    channels whose level wanders, such as volatilities; a feature whose level within the window is what it says loses by
    it (docs/decisions.md), so none is normalised by default.
    """

    hidden_size: int = 32  # D, even: half of it per direction of the LSTM
    lstm_layers: int = 1
    encoder_layers: int = 1
    attention_heads: int = 4
    feed_forward_size: int = 32  # between the two KAN layers of a feed-forward
    positions: Positions = "sinusoidal"
    spline_intervals: int = 5  # of a KAN layer's grid
    spline_limit: float = 3.0  # the grid spans -limit..limit; a layer's inputs are normalised
    revin_channels: str = ""
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
        require_between("spline_intervals", self.spline_intervals, 1, 64)
        require_between("spline_limit", self.spline_limit, 0.1, 100.0)
        if not isinstance(self.revin_channels, str):
            allowed = f"'' (none), '{ALL}', names of channels with spaces between them"
            raise ValueError(f"revin_channels is {self.revin_channels!r}; it must be one of {allowed}")
        require_between("experts", self.experts, 1, 64)
        require_between("expert_size", self.expert_size, 1, 1024)
        require_between("top_k", self.top_k, 0, self.experts)
        require_choosing(self.top_k)
        require_between("dropout", self.dropout, 0.0, 0.9)
        require_multiple("hidden_size", self.hidden_size, "the LSTM's directions", 2)
        require_multiple("hidden_size", self.hidden_size, "attention_heads", self.attention_heads)

    def revin_columns(self, spec: InputSpec) -> tuple[int, ...]:
        """The positions of `revin_channels` among the channels; ValueError naming those that the spec does not have."""
        names = self.revin_channels.split()
        if names == [ALL]:
            names = [name for name in spec.channels if not name.endswith(MASK_SUFFIX) and name not in spec.context]
        unknown = [name for name in names if name not in spec.channels]
        if unknown:
            raise ValueError(
                f"revin_channels names {', '.join(unknown)}; the channels are {', '.join(spec.channels)}, or '{ALL}'"
            )
        return tuple(spec.channels.index(name) for name in dict.fromkeys(names))


SEARCH: SearchSpace = {
    "hidden_size": Choice((16, 32, 64)),
    "lstm_layers": Whole(1, 2),
    "encoder_layers": Whole(1, 2),
    "attention_heads": Choice((1, 2, 4, 8)),
    "feed_forward_size": Choice((16, 32, 64)),
    "positions": Choice(POSITIONS),
    "spline_intervals": Whole(3, 10),
    "revin_channels": Choice(("", ALL)),
    "experts": Whole(2, 8),
    "expert_size": Choice((8, 16, 32)),
    "top_k": Choice((0, 2)),
    "dropout": Real(0.0, 0.5),
}


class KANFormerModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]."""

    def __init__(self, config: KANFormerConfig, spec: InputSpec) -> None:
        super().__init__()
        size, dropout = config.hidden_size, config.dropout
        columns = config.revin_columns(spec)
        self.normalise = ChannelNormalisation(columns)
        self.path = KANPathEncoder(config, spec)
        self.sample = SampleEmbedding(spec, size, dropout, extra=2 * len(columns))
        self.fusion = nn.Sequential(nn.Linear(3 * size, size), nn.Dropout(dropout))
        self.residual = ResidualBlock(size, SwiGLU(size, 2 * size, size), dropout)
        self.norm = nn.LayerNorm(size)
        hidden = len(spec.horizons) * config.experts * config.expert_size
        intervals, limit = config.spline_intervals, config.spline_limit
        body = KANLayer(size, hidden, intervals, limit)
        heads = partial(GroupedKANLayer, intervals=intervals, limit=limit)
        self.mixture = MixtureOfExperts(size, body, config.expert_size, config.experts, config.top_k, spec, heads)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        normal, statistics = self.normalise(x)  # [B,E,C], [B,2R]
        path = self.path(normal)  # [B,E,C] -> [B,E,D]
        sample = self.sample(x, static, statistics)  # [B,D]
        pooled = torch.cat((path.mean(dim=1), path[:, -1], sample), dim=-1)  # [B,3D]
        features = self.norm(self.residual(self.fusion(pooled)))  # [B,3D] -> [B,D]
        output: Tensor = self.mixture(features)  # [B,H,O]
        return output

    def auxiliary_loss(self) -> Tensor:
        """See MixtureOfExperts: the load balance of the experts."""
        return self.mixture.auxiliary_loss()

    def figures(self) -> dict[str, float]:
        """See MixtureOfExperts: how much each expert is used."""
        return self.mixture.figures()


class ChannelNormalisation(nn.Module):
    """x [B,E,C] -> (x with R of its channels normalised per window [B,E,C], their mean and log-std [B,2R])."""

    columns: Tensor  # [R] int64

    def __init__(self, columns: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.revin = RevIN(len(columns)) if columns else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.revin is None:
            return x, x.new_zeros(len(x), 0)
        normal, (mean, std) = self.revin(x.index_select(-1, self.columns))  # [B,E,C] -> [B,E,R]
        return x.index_copy(-1, self.columns, normal), torch.cat((mean, std.log()), dim=-1)  # 2 x [B,R] -> [B,2R]


class KANPathEncoder(nn.Module):
    """x [B,E,C] -> [B,E,D]: linear, bidirectional LSTM, SwiGLU, positions, Transformer encoder with KAN, LayerNorm."""

    def __init__(self, config: KANFormerConfig, spec: InputSpec) -> None:
        super().__init__()
        size, dropout = config.hidden_size, config.dropout
        self.linear = nn.Linear(len(spec.channels), size)
        between = dropout if config.lstm_layers > 1 else 0.0
        self.lstm = nn.LSTM(size, size // 2, config.lstm_layers, batch_first=True, dropout=between, bidirectional=True)
        self.gating = SwiGLU(size, 2 * size, size)
        self.positions = position_encoding(config.positions, spec.encoder_length, size)
        self.encoder = nn.Sequential(
            *(
                EncoderBlock(size, config.attention_heads, kan_feed_forward(config), dropout)
                for _ in range(config.encoder_layers)
            ),
            nn.LayerNorm(size),
        )

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.linear(x))  # [B,E,C] -> [B,E,D], both directions side by side
        encoded: Tensor = self.encoder(self.positions(self.gating(states)))
        return encoded


def kan_feed_forward(config: KANFormerConfig) -> nn.Module:
    """[...,D] -> [...,D] by two KAN layers."""
    size, hidden = config.hidden_size, config.feed_forward_size
    grid = (config.spline_intervals, config.spline_limit)
    return nn.Sequential(KANLayer(size, hidden, *grid), nn.Dropout(config.dropout), KANLayer(hidden, size, *grid))


def build(config: KANFormerConfig, spec: InputSpec) -> nn.Module:
    return KANFormerModel(config, spec)


CONFIG = KANFormerConfig
