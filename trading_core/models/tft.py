"""The Temporal Fusion Transformer of pytorch-forecasting (Lim et al. 2021, https://arxiv.org/abs/1912.09363).

It is built straight from its constructor's arguments, without that library's dataset, loader or checkpoints, and reads
windows gathered from a panel. Its decoder has one step per horizon, whose only known input is the horizon itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_between
from trading_core.models.heads import embedding_size
from trading_core.schema import InputSpec

if TYPE_CHECKING:
    from pytorch_forecasting.models.temporal_fusion_transformer import TemporalFusionTransformer

HORIZON = "log_horizon"
LONGEST = 63  # sessions; log(horizon) / log(LONGEST) lies in 0..1 whatever the other horizons are


@dataclass(frozen=True, slots=True)
class TFTConfig:
    hidden_size: int = 16
    attention_heads: int = 2
    lstm_layers: int = 1
    dropout: float = 0.1
    hidden_continuous_size: int = 8  # width of one channel before variable selection

    def __post_init__(self) -> None:
        require_between("hidden_size", self.hidden_size, 2, 512)
        require_between("attention_heads", self.attention_heads, 1, 16)
        require_between("lstm_layers", self.lstm_layers, 1, 4)
        require_between("dropout", self.dropout, 0.0, 0.9)
        require_between("hidden_continuous_size", self.hidden_continuous_size, 1, 256)
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of attention_heads {self.attention_heads}"
            )


class TFTModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,Q]; the network's quantiles may cross, so they are sorted."""

    horizon_input: Tensor  # [H]

    def __init__(self, config: TFTConfig, spec: InputSpec) -> None:
        super().__init__()
        self.network = _network(config, spec)
        steps = torch.tensor([log(h) / log(LONGEST) for h in spec.horizons], dtype=torch.float32)
        self.register_buffer("horizon_input", steps, persistent=False)  # follows from the spec: not a weight

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        batch, encoder, _ = x.shape
        steps = len(self.horizon_input)
        # Reals are ordered known, unknown. The decoder's unknown columns are zeros and are never read.
        known = x.new_zeros(batch, encoder, 1)
        decoder = x.new_zeros(batch, steps, 1 + x.shape[2])  # [B,H,1+C]
        decoder[..., 0] = self.horizon_input
        output = self.network(
            {
                "encoder_cat": static.unsqueeze(1).expand(-1, encoder, -1),  # [B,K] -> [B,E,K]
                "decoder_cat": static.unsqueeze(1).expand(-1, steps, -1),  # [B,K] -> [B,H,K]
                "encoder_cont": torch.cat((known, x), dim=-1),  # [B,E,1+C]
                "decoder_cont": decoder,
                "encoder_lengths": torch.full((batch,), encoder, device=x.device),
                "decoder_lengths": torch.full((batch,), steps, device=x.device),
                "target_scale": x.new_tensor((0.0, 1.0)).expand(batch, 2),
            }
        )
        return output["prediction"].sort(dim=-1).values  # [B,H,Q]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TFTModel:
        # The network is a LightningModule, which learns its device only from its own .to(): a plain parent's .to()
        # moves the weights and leaves `network.device`, which the attention mask is made on, at the old one.
        super()._apply(fn, recurse)
        self.network.to(device=next(self.network.parameters()).device)
        return self


def _network(config: TFTConfig, spec: InputSpec) -> TemporalFusionTransformer:
    # Imported here because it costs seconds, which users of the other models need not pay.
    from pytorch_forecasting.data.encoders import TorchNormalizer
    from pytorch_forecasting.metrics import QuantileLoss
    from pytorch_forecasting.models.temporal_fusion_transformer import TemporalFusionTransformer

    # Positional names: a channel may be called anything, a ModuleDict's key may not.
    channels = [f"x{i}" for i in range(len(spec.channels))]
    static = [f"s{k}" for k in range(len(spec.static_cardinalities))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on saving `loss` as a hyper-parameter, which is never saved
        return TemporalFusionTransformer(
            hidden_size=config.hidden_size,
            lstm_layers=config.lstm_layers,
            dropout=config.dropout,
            output_size=len(spec.quantiles),
            loss=QuantileLoss(list(spec.quantiles)),
            attention_head_size=config.attention_heads,
            max_encoder_length=spec.encoder_length,
            static_categoricals=static,
            time_varying_reals_encoder=channels,
            time_varying_reals_decoder=[HORIZON],
            x_reals=[HORIZON, *channels],
            x_categoricals=static,
            hidden_continuous_size=config.hidden_continuous_size,
            embedding_sizes={
                name: (count, embedding_size(count, config.hidden_size))
                for name, count in zip(static, spec.static_cardinalities, strict=True)
            },
            logging_metrics=nn.ModuleList([]),
            output_transformer=TorchNormalizer(method="identity", center=False),
        )


def build(config: TFTConfig, spec: InputSpec) -> nn.Module:
    return TFTModel(config, spec)


CONFIG = TFTConfig
