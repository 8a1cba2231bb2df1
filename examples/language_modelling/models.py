"""An LSTM with the dropouts of AWD-LSTM, each of which is off at 0."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

State = list[tuple[Tensor, Tensor]]


def locked_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout that drops the same units at every time step; x has the shape (time, batch, units)."""
    return x * F.dropout(torch.ones_like(x[0]), p, training)


class LanguageModel(nn.Module):
    """Embedding, `layers` LSTM layers, and a decoder that shares the embedding's weights.

    The last layer has the embedding's size, the others have `hidden` units. The embedding begins uniform within
    ±`spread`. Each dropout is a probability: to drop units of the embedding's output (`input_dropout`), between layers
    (`hidden_dropout`) and before the decoder (`dropout`), the same ones at every time step; tokens of the vocabulary
    (`embedding_dropout`); entries of the recurrent matrices (`weight_dropout`).

    References:
        Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", arXiv 1708.02182.
    """

    def __init__(
        self,
        vocabulary: int,
        layers: int,
        embedding: int,
        hidden: int,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        input_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        spread: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -spread, spread)
        sizes = [embedding, *[hidden] * (layers - 1), embedding]
        self.lstms = nn.ModuleList(nn.LSTM(*pair) for pair in pairwise(sizes))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.after = [*[hidden_dropout] * (layers - 1), dropout]
        self.input_dropout, self.embedding_dropout = input_dropout, embedding_dropout
        self.weight_dropout = weight_dropout

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor, Tensor]:
        """Predict the next token at every position.

        Args:
            tokens: int64, shape (time, batch).
            state: (h, c) of each layer, as returned by the call before; None: zeros.

        Returns:
            Logits (time, batch, vocabulary), the new state, and the last layer's output before and after dropout.
        """
        weight = self.embedding.weight
        rows = F.dropout(torch.ones_like(weight[:, :1]), self.embedding_dropout, self.training)
        x = locked_dropout(F.embedding(tokens, weight * rows), self.input_dropout, self.training)
        new: State = []
        for i, (lstm, p) in enumerate(zip(self.lstms, self.after, strict=True)):
            recurrent = F.dropout(lstm.weight_hh_l0, self.weight_dropout, self.training)
            arguments = (x,) if state is None else (x, state[i])
            output, last = functional_call(lstm, {"weight_hh_l0": recurrent}, arguments)
            new.append(last)
            x = locked_dropout(output, p, self.training)
        return F.linear(x, weight, self.bias), new, output, x


def detach(state: State) -> State:
    """The state's values without the graph that made them, so that backpropagation ends at a window's beginning."""
    return [(h.detach(), c.detach()) for h, c in state]
