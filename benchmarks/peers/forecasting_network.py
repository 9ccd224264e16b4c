"""pytorch-forecasting's Temporal Fusion Transformer with the shapes of ours, and its weights under our names.

It is built from its constructor's arguments and fed with windows, without that library's datasets. What it says of the
future is the horizon itself and the context channels under names of their own, as ours does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from pytorch_forecasting.data.encoders import TorchNormalizer
from pytorch_forecasting.metrics import QuantileLoss
from pytorch_forecasting.models.temporal_fusion_transformer import TemporalFusionTransformer
from torch import Tensor, nn

from trading_core.models.heads import embedding_size
from trading_core.models.tft import TFTConfig
from trading_core.schema import InputSpec

HORIZON = "horizon"


class Reference(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> raw outputs [B,H,O], as TFTModel without the order of its quantiles."""

    def __init__(self, config: TFTConfig, spec: InputSpec, horizon_input: Tensor) -> None:
        super().__init__()
        self.network = reference_network(config, spec)
        self.columns, self.horizon_input = list(spec.context_columns), horizon_input

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return self.outputs(x, static)["prediction"]

    def outputs(self, x: Tensor, static: Tensor) -> Mapping[str, Tensor]:
        """Everything the network gives: the prediction, weights of variables and attention."""
        batch, encoder, channels = x.shape
        steps = len(self.horizon_input)
        known = x[:, -1, self.columns].unsqueeze(1).expand(-1, steps, -1)  # [B,H,context]
        future = torch.cat((self.horizon_input.to(x)[None, :, None].expand(batch, -1, -1), known), dim=-1)
        return self.network(
            {
                "encoder_cat": static.unsqueeze(1).expand(-1, encoder, -1),  # [B,K] -> [B,E,K]
                "decoder_cat": static.unsqueeze(1).expand(-1, steps, -1),  # [B,K] -> [B,H,K]
                # What is known of the future comes first; each part reads its own columns only.
                "encoder_cont": torch.cat((x.new_zeros(batch, encoder, future.shape[2]), x), dim=-1),
                "decoder_cont": torch.cat((future, x.new_zeros(batch, steps, channels)), dim=-1),
                "encoder_lengths": torch.full((batch,), encoder, device=x.device),
                "decoder_lengths": torch.full((batch,), steps, device=x.device),
                "target_scale": x.new_tensor((0.0, 1.0)).expand(batch, 2),
            }
        )


def reference_network(config: TFTConfig, spec: InputSpec) -> TemporalFusionTransformer:
    # Positional names: a channel may be called anything, a ModuleDict's key may not.
    channels = [f"x{i}" for i in range(len(spec.channels))]
    future = [HORIZON, *(f"known{i}" for i in spec.context_columns)]
    static = [f"s{k}" for k in range(len(spec.static_cardinalities))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on saving `loss` as a hyper-parameter, which is never saved
        return TemporalFusionTransformer(
            hidden_size=config.hidden_size,
            lstm_layers=config.lstm_layers,
            dropout=config.dropout,
            output_size=spec.outputs,
            loss=QuantileLoss(list(spec.quantiles)),
            attention_head_size=config.attention_heads,
            max_encoder_length=spec.encoder_length,
            static_categoricals=static,
            time_varying_reals_encoder=channels,
            time_varying_reals_decoder=future,
            x_reals=[*future, *channels],
            x_categoricals=static,
            hidden_continuous_size=config.hidden_continuous_size,
            embedding_sizes={
                name: (count, embedding_size(count, config.hidden_size))
                for name, count in zip(static, spec.static_cardinalities, strict=True)
            },
            logging_metrics=nn.ModuleList([]),
            output_transformer=TorchNormalizer(method="identity", center=False),
        )


def gradients(network: TemporalFusionTransformer) -> dict[str, Tensor]:
    """The gradients by parameter name, zeros where there is none."""
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in network.named_parameters()
    }


def converted(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a TFTModel that computes what the network of this state computes; of gradients, the gradients.

    One to one, but for the bias of the attention's keys, which shifts all scores of a query alike: softmax takes it out.
    """
    ours: dict[str, Tensor] = {}
    for source, target in _RESIDUALS.items():
        ours |= _residual(theirs, source, target)
    for source, target in _SELECTIONS.items():
        ours |= _selection(theirs, source, target)
    ours |= _static(theirs)
    for source, target in _MODULES.items():
        ours |= {f"{target}.{part}": theirs[f"{source}.{part}"] for part in _parts(theirs, f"{source}.")}
    for source, target in (("q_layers", "query"), ("k_layers", "key")):
        heads = {part.split(".")[0] for part in _parts(theirs, f"multihead_attn.{source}.")}
        for kind in ("weight", "bias"):
            names = [f"multihead_attn.{source}.{head}.{kind}" for head in sorted(heads, key=int)]
            ours[f"attention.{target}.{kind}"] = torch.cat([theirs[name] for name in names])  # N x [D/N,D] -> [D,D]
    del ours["attention.key.bias"]
    return ours


_MODULES = {
    "lstm_encoder": "encoder",
    "lstm_decoder": "decoder",
    "post_lstm_gate_encoder.fc": "local_gate.linear",
    "post_lstm_add_norm_encoder.norm": "local_gate.norm",
    "multihead_attn.v_layer": "attention.value",
    "multihead_attn.w_h": "attention.output",
    "post_attn_gate_norm.glu.fc": "attention_gate.linear",
    "post_attn_gate_norm.add_norm.norm": "attention_gate.norm",
    "pre_output_gate_norm.glu.fc": "output_gate.linear",
    "pre_output_gate_norm.add_norm.norm": "output_gate.norm",
    "output_layer": "output",
}
_RESIDUALS = {
    "static_variable_selection.flattened_grn": "static_selection.weighing",
    "encoder_variable_selection.flattened_grn": "past_selection.weighing",
    "decoder_variable_selection.flattened_grn": "future_selection.weighing",
    "static_context_variable_selection": "selection_context",
    "static_context_initial_hidden_lstm": "hidden_context",
    "static_context_initial_cell_lstm": "cell_context",
    "static_context_enrichment": "enrichment_context",
    "static_enrichment": "enrichment",
    "pos_wise_ff": "position_wise",
}
_SELECTIONS = {"encoder_variable_selection": "past_selection", "decoder_variable_selection": "future_selection"}
# Parts of a gated residual network: theirs, ours as a module, ours where a selection stacks them over variables.
_LAYERS = (
    ("fc1.{}", "first.{}", "first_{}"),
    ("fc2.{}", "second.{}", "second_{}"),
    ("gate_norm.glu.fc.{}", "output.linear.{}", "gate_{}"),
    ("gate_norm.add_norm.norm.{}", "output.norm.{}", "norm_{}"),
    ("resample_norm.norm.{}", "skip.norm.{}", "skip_{}"),
)
_NAMES = [tuple(name.format(kind) for name in row) for row in _LAYERS for kind in ("weight", "bias")]
_NAMES += [("resample_norm.mask", "skip.mask", "skip_mask"), ("context.weight", "context.weight", "")]


def _residual(theirs: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """A gated residual network; a network that has none of this name gives nothing."""
    names = ((f"{source}.{name}", f"{target}.{ours}") for name, ours, _ in _NAMES)
    return {ours: theirs[name] for name, ours in names if name in theirs}


def _selection(theirs: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """The networks of single variables, stacked over variables in their order."""
    prefix = f"{source}.single_variable_grns."
    variables = list(_first_words(theirs, prefix))
    ours = {}
    for name, _, stacked in _NAMES:
        if f"{prefix}{variables[0]}.{name}" in theirs:
            ours[f"{target}.{stacked}"] = torch.stack([theirs[f"{prefix}{variable}.{name}"] for variable in variables])
    weight = torch.stack([theirs[f"prescalers.{variable}.weight"] for variable in variables])  # [V,P,1]
    ours[f"{target}.prescale_weight"] = weight.squeeze(-1)
    ours[f"{target}.prescale_bias"] = torch.stack([theirs[f"prescalers.{variable}.bias"] for variable in variables])
    return ours


def _static(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "static_variable_selection.single_variable_grns."
    ours = {}
    for k, name in enumerate(_first_words(theirs, prefix)):
        ours[f"static_selection.tables.{k}.weight"] = theirs[f"input_embeddings.embeddings.{name}.weight"]
        for part in _parts(theirs, f"{prefix}{name}."):
            ours[f"static_selection.resample.{k}.{part}"] = theirs[f"{prefix}{name}.{part}"]
    return ours


def _parts(theirs: Mapping[str, Tensor], prefix: str) -> Iterator[str]:
    return (name.removeprefix(prefix) for name in theirs if name.startswith(prefix))


def _first_words(theirs: Mapping[str, Tensor], prefix: str) -> dict[str, None]:
    return dict.fromkeys(part.split(".")[0] for part in _parts(theirs, prefix))
