"""Vision transformer with the DeiT block (arXiv 2010.11929, 2012.12877): an image in, class scores out.

The weights carry the names timm gives them. B batch, H and W pixels, N tokens, D = dim, h heads of d = D/h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Sizes of one transformer; the defaults are those of the shipped checkpoint, for images of 32 x 32."""

    size: int = 32
    patch: int = 4  # pixels from one patch to the next
    window: int = 8  # pixels a patch reads; wider than `patch`: neighbours overlap, zeros around the image
    dim: int = 96
    depth: int = 6
    heads: int = 3
    mlp_ratio: float = 2.0
    pool: Literal["class", "mean"] = "mean"  # what the head reads: a token of its own, or the mean of all
    classes: int = 10

    @classmethod
    def deit_tiny(cls) -> Config:
        """Return the sizes of DeiT-Tiny for ImageNet (5,717,416 parameters)."""
        return cls(size=224, patch=16, window=16, dim=192, depth=12, heads=3, mlp_ratio=4.0, pool="class", classes=1000)


class PatchEmbed(nn.Module):
    """One convolution makes a token of each patch: [B,3,H,W] -> [B,N,D]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.window, config.patch, (config.window - config.patch) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens, row after row. x: [B,3,H,W] -> [B,N,D]."""
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Softmax attention among all tokens, scaled by 1/sqrt(d)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the tokens. x: [B,N,D] -> [B,N,D]."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each [B,h,N,d]
        if self.training:  # the same sum: on a CPU the gradient of the fused one takes three times as long
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
            mixed = weights @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return y


class Mlp(nn.Module):
    """Two linear layers around a GELU (erf): [B,N,D] -> [B,N,D]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the tokens. x: [B,N,D] -> [B,N,D]."""
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention, then MLP, each on normalised tokens and added to them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, config.heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after the block. x: [B,N,D] -> [B,N,D]."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class VisionTransformer(nn.Module):
    """The whole network: image in, scores out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.pool not in ("class", "mean"):
            raise ValueError(f"pool: expected 'class' or 'mean', found {config.pool!r}")
        margin = config.window - config.patch
        if config.size % config.patch or config.dim % config.heads or margin < 0 or margin % 2:
            raise ValueError(
                "expected size a multiple of patch, dim of heads, and window wider than patch by an even number; found "
                f"size {config.size}, patch {config.patch}, window {config.window}, dim {config.dim}, "
                f"heads {config.heads}"
            )
        self.has_class_token = config.pool == "class"
        self.keep = 1.0  # share of the tokens that training sees, drawn anew for each batch; all of them in eval mode
        tokens = (config.size // config.patch) ** 2 + self.has_class_token
        if self.has_class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, config.dim))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.head = nn.Linear(config.dim, config.classes)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() != 1 and not name.startswith("patch_embed"):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores. x: [B,3,H,W] (in [-2,2)) -> [B,classes]."""
        tokens = self.patch_embed(x)
        if self.has_class_token:
            tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), tokens), dim=1)
        tokens = tokens + self.pos_embed
        if self.training and self.keep < 1.0:
            count = tokens.shape[1]
            tokens = tokens[:, torch.randperm(count)[: round(self.keep * count)]]
        tokens = self.norm(self.blocks(tokens))
        scores: Tensor = self.head(tokens[:, 0] if self.has_class_token else tokens.mean(1))
        return scores
