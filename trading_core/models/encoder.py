"""The Transformer's encoder block, in the pre-norm form that trains without warm-up; its feed-forward part is handed in.

Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762); pre-norm: Xiong et al. 2020 (https://arxiv.org/abs/2002.04745).
Whoever stacks blocks puts a LayerNorm after the last one, because a block's output is the plain sum of what was added.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trading_core.models.bounds import require_multiple


class SelfAttention(nn.Module):
    """x [B,E,D] -> [B,E,D]: every step looks at all steps with `heads` heads of D/heads columns; no mask.

    `dropout` falls on the attention weights. ValueError when D is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        require_multiple("width", width, "heads", heads)
        self.heads, self.dropout = heads, dropout
        self.inputs = nn.Linear(width, 3 * width)  # queries, keys and values side by side
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inputs(x).unflatten(-1, (3, self.heads, -1))  # [B,E,3D] -> [B,E,3,N,D/N]
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # 3 x [B,N,E,D/N]
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # [B,N,E,D/N] -> [B,E,D]
        return output


class FeedForward(nn.Sequential):
    """x [...,D] -> [...,D] through `inner` columns with GELU, each step by itself."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, width))


class EncoderBlock(nn.Module):
    """x [B,E,D] -> [B,E,D]: x += attention(norm(x)), then x += feed_forward(norm(x)), both with dropout."""

    def __init__(self, width: int, heads: int, feed_forward: nn.Module, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.feed_forward = feed_forward
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        output: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return output
