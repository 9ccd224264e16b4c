"""The Temporal Fusion Transformer (Lim et al. 2021, https://arxiv.org/abs/1912.09363).

Numerically the network of pytorch-forecasting 1.8 (its weights map one to one, see benchmarks/peers), computed so that
work is shared: variable selection, nearly all of the cost, depends on a row (symbol and session) and not on the window
that reads it, so `forward_panel` does it once per row however many windows overlap there.

The decoder has one step per horizon. What is known of the future there is the horizon itself, and `spec.context` as it
was at the decision. E encoder steps, C channels, K static columns, H horizons, O outputs, D = hidden_size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_between, require_multiple
from trading_core.models.heads import embedding_size
from trading_core.models.search import Choice, Real, SearchSpace, Whole
from trading_core.models.tft_layers import GateAddNorm, GatedResidual, InterpretableAttention
from trading_core.models.tft_selection import ScalarSelection, StaticSelection, rows_at_once, select
from trading_core.schema import InputSpec, Target

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
        require_multiple("hidden_size", self.hidden_size, "attention_heads", self.attention_heads)


SEARCH: SearchSpace = {
    "hidden_size": Choice((16, 32, 64, 128)),  # each a multiple of every number of heads below
    "attention_heads": Choice((1, 2, 4)),
    "lstm_layers": Whole(1, 2),
    "dropout": Real(0.0, 0.5),
    "hidden_continuous_size": Choice((4, 8, 16)),
}


class Interpretation(NamedTuple):
    """What a forecast looked at; every row of every field sums to one (static: where there is a static column).

    attention [B,H,E+H]: of each horizon on the window's steps and the horizons before it, mean of the heads.
    channels [B,C]: weight of each channel, mean over the window. static [B,K]: weight of each static column.
    future [B,1+context]: weight of the horizon and of each context channel in the decoder, mean over horizons.
    """

    attention: Tensor
    channels: Tensor
    static: Tensor
    future: Tensor


class Contexts(NamedTuple):
    """What the static columns say to each part of the network, [N,D] each."""

    selection: Tensor
    hidden: Tensor
    cell: Tensor
    enrichment: Tensor
    weights: Tensor  # [N,K] of the static columns themselves


class TFTModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]; the network's quantiles may cross, so they are sorted."""

    horizon_input: Tensor  # [H]

    def __init__(self, config: TFTConfig, spec: InputSpec) -> None:
        super().__init__()
        width, dropout = config.hidden_size, config.dropout
        self.encoder_length, self.hidden_size, self.layers = spec.encoder_length, width, config.lstm_layers
        self.context_columns = list(spec.context_columns)
        self.quantiles = spec.columns_of(Target.QUANTILES) if Target.QUANTILES in spec.targets else None
        steps = torch.tensor([log(h) / log(LONGEST) for h in spec.horizons], dtype=torch.float32)
        self.register_buffer("horizon_input", steps, persistent=False)  # follows from the spec: not a weight
        sizes = tuple(embedding_size(count, width) for count in spec.static_cardinalities)
        self.static_selection = StaticSelection(spec.static_cardinalities, sizes, width, dropout)
        prescaled, future = config.hidden_continuous_size, 1 + len(self.context_columns)
        self.past_selection = ScalarSelection(len(spec.channels), width, prescaled, dropout, context=True)
        self.future_selection = ScalarSelection(future, width, prescaled, dropout, context=True)
        self.selection_context = GatedResidual(width, width, dropout)
        self.hidden_context = GatedResidual(width, width, dropout)
        self.cell_context = GatedResidual(width, width, dropout)
        self.enrichment_context = GatedResidual(width, width, dropout)
        between = dropout if config.lstm_layers > 1 else 0.0  # torch warns of a dropout between layers of one
        self.encoder = nn.LSTM(width, width, config.lstm_layers, batch_first=True, dropout=between)
        self.decoder = nn.LSTM(width, width, config.lstm_layers, batch_first=True, dropout=between)
        self.local_gate = GateAddNorm(width, width, dropout)
        self.enrichment = GatedResidual(width, width, dropout, context=width)
        self.attention = InterpretableAttention(width, config.attention_heads, dropout)
        self.attention_gate = GateAddNorm(width, width, dropout)
        self.position_wise = GatedResidual(width, width, dropout)
        self.output_gate = GateAddNorm(width, width)
        self.output = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        contexts = self.contexts(static)
        past, _ = self._past(x, contexts)
        return self.finish(self.decode(past, x[:, -1], contexts)[0])

    def forward_panel(self, channels: Tensor, static: Tensor, symbol: Tensor, column: Tensor) -> Tensor:
        """`forward` of the windows that end at (symbol, column) [B], out of channels [S,T,C] and static [S,K].

        See models.forward.PanelForward.
        """
        known, position = torch.unique(symbol, return_inverse=True)  # [U] symbols in use, [B]
        contexts = self.contexts(static[known])
        covered, first = _covered(position, column, len(known), channels.shape[1], self.encoder_length)
        table = self._table(channels, known, covered, contexts.selection)  # [R,D]
        step = torch.arange(self.encoder_length, device=column.device)
        size = rows_at_once(symbol.device, self.hidden_size * (self.encoder_length + len(self.horizon_input)))
        outputs = []
        for part in torch.arange(len(symbol), device=symbol.device).tensor_split(max(1, round(len(symbol) / size))):
            past = nn.functional.embedding(first[part].unsqueeze(1) + step, table)  # [b,E] -> [b,E,D]
            last = channels[symbol[part], column[part]]  # [b,C]
            raw = self.decode(past, last, Contexts(*(field[position[part]] for field in contexts)))[0]
            outputs.append(self.finish(raw))
        return torch.cat(outputs)  # [B,H,O]

    def interpret(self, x: Tensor, static: Tensor) -> Interpretation:
        """What the forecasts of `forward(x [B,E,C], static [B,K])` look at."""
        contexts = self.contexts(static)
        past, channels = self._past(x, contexts)
        _, attention, future = self.decode(past, x[:, -1], contexts)
        return Interpretation(attention.mean(dim=1), channels.mean(dim=1), contexts.weights, future.mean(dim=1))

    @contextmanager
    def compiled(self, backend: str = "inductor") -> Iterator[None]:
        """See models.registry.Compilable: the window's variable selection; the first call of each mode takes 5 to 20 s more."""
        self.past_selection.select = torch.compile(select, dynamic=True, fullgraph=True, backend=backend)
        try:
            yield
        finally:
            self.past_selection.select = select

    def contexts(self, static: Tensor) -> Contexts:
        embedding, weights = self.static_selection(static)  # [N,D], [N,K]
        return Contexts(
            selection=self.selection_context(embedding),
            hidden=self.hidden_context(embedding),
            cell=self.cell_context(embedding),
            enrichment=self.enrichment_context(embedding),
            weights=weights,
        )

    def decode(self, past: Tensor, last: Tensor, contexts: Contexts) -> tuple[Tensor, Tensor, Tensor]:
        """(raw outputs [B,H,O], attention [B,N,H,E+H], future weights [B,H,1+context]).

        past: selected rows of the windows [B,E,D]; last: the channels of their last rows [B,C].
        """
        horizons = len(self.horizon_input)
        future, weights = self._future(last, contexts)  # [B,H,D]
        start = tuple(part.expand(self.layers, -1, -1).contiguous() for part in (contexts.hidden, contexts.cell))
        encoded, state = self.encoder(past, start)
        decoded, _ = self.decoder(future, state)
        ahead = self.local_gate(decoded, future)
        steps = torch.cat((self.local_gate(encoded, past), ahead), dim=1)  # [B,E+H,D]
        steps = self.enrichment(steps, contexts.enrichment.unsqueeze(1))
        attended, attention = self.attention(steps, horizons)  # [B,H,D]
        x = self.position_wise(self.attention_gate(attended, steps[:, -horizons:]))
        return self.output(self.output_gate(x, ahead)), attention, weights

    def finish(self, raw: Tensor) -> Tensor:
        """[B,H,O] with the quantiles in order."""
        if self.quantiles is None:
            return raw
        before, after = raw[..., : self.quantiles.start], raw[..., self.quantiles.stop :]
        return torch.cat((before, raw[..., self.quantiles].sort(dim=-1).values, after), dim=-1)

    def _past(self, x: Tensor, contexts: Contexts) -> tuple[Tensor, Tensor]:
        """(selected [B,E,D], weights [B,E,C]) of the windows x [B,E,C]."""
        selected, weights = self.past_selection(x.flatten(0, 1), _each(contexts.selection, x.shape[1]))
        return selected.unflatten(0, x.shape[:2]), weights.unflatten(0, x.shape[:2])

    def _future(self, last: Tensor, contexts: Contexts) -> tuple[Tensor, Tensor]:
        """(selected [B,H,D], weights [B,H,1+context]) of the decoder's steps. last: [B,C]."""
        batch, horizons = len(last), len(self.horizon_input)
        if not self.context_columns and not (self.training and self.future_selection.dropout):
            selected, weights = self.future_selection(self.horizon_input.unsqueeze(1))  # the same for every sample
            return selected.expand(batch, -1, -1), weights.expand(batch, -1, -1)
        known = _each(last[:, self.context_columns], horizons)  # [B,context] -> [B*H,context]
        x = torch.cat((self.horizon_input.repeat(batch).unsqueeze(1), known), dim=1)  # [B*H,1+context]
        selected, weights = self.future_selection(x, _each(contexts.selection, horizons))
        return selected.unflatten(0, (batch, horizons)), weights.unflatten(0, (batch, horizons))

    def _table(self, channels: Tensor, known: Tensor, covered: Tensor, context: Tensor) -> Tensor:
        """[R,D]: the covered [U,T] rows of symbols known [U], selected; by symbol, then session. context: [U,D]."""
        selection = self.past_selection
        lines, projected = selection.fold(), selection.projected(context)
        rows = covered.nonzero()  # [R,2]
        parts = []
        for u, t in (part.unbind(1) for part in rows.split(selection.rows_at_once(channels.device))):
            x, own = channels[known[u], t], None if projected is None else projected[u]  # [n,C], [n,J]
            parts.append(selection.select(x, own, lines, selection.masks(len(x)))[0])
        return torch.cat(parts)


def _each(context: Tensor, steps: int) -> Tensor:
    """[B,D] -> [B*steps,D]: the same for each step of a sample."""
    return context.unsqueeze(1).expand(-1, steps, -1).flatten(0, 1)


def _covered(position: Tensor, column: Tensor, symbols: int, sessions: int, length: int) -> tuple[Tensor, Tensor]:
    """(which rows of [U,T] some window covers, [B] the number of each window's first row among them).

    A window's rows follow each other in that numbering, because all of them are covered.
    """
    border = torch.zeros(symbols, sessions + 1, dtype=torch.int32, device=column.device)
    one = torch.ones_like(column, dtype=torch.int32)
    border.index_put_((position, column - length + 1), one, accumulate=True)
    border.index_put_((position, column + 1), -one, accumulate=True)
    covered = border.cumsum(dim=1)[:, :-1] > 0  # [U,T]
    number = covered.flatten().cumsum(dim=0) - 1  # [U*T]
    return covered, number[position * sessions + column - length + 1]


def build(config: TFTConfig, spec: InputSpec) -> nn.Module:
    return TFTModel(config, spec)


CONFIG = TFTConfig
COMPILES = True
