"""Frame features -> one summary of the clip: the paper's LSTM, and what one may put in its place.

Each takes features float [B, T, F] and gives float [B, hidden_size] by `summary`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viptt_core.errors import SettingError


class KerasLSTM(nn.LSTM):
    """One-layer LSTM with one bias vector, as Keras has it.

    PyTorch adds two bias vectors, which is the same function with 4 x hidden more parameters. The
    second one is kept as a constant zero that is neither trained nor saved.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        zeros = torch.zeros_like(self.bias_hh_l0.data)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", zeros, persistent=False)

    def summary(self, features: Tensor) -> Tensor:
        """The last state."""
        return self(features)[0][:, -1]


class GRU(nn.GRU):
    """One-layer GRU, the same function as Keras's (reset after the product)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def summary(self, features: Tensor) -> Tensor:
        """The last state."""
        return self(features)[0][:, -1]


class BidirectionalLSTM(nn.Module):
    """Two LSTMs of half the units, one from each end: a scan has no direction of time.

    Raises:
        SettingError: an odd number of units.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if hidden_size % 2:
            raise SettingError(f"hidden_size is {hidden_size}.", remedy="Two directions need an even number.")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.upward = KerasLSTM(input_size, hidden_size // 2)
        self.downward = KerasLSTM(input_size, hidden_size // 2)

    def summary(self, features: Tensor) -> Tensor:
        """The last state of each direction, side by side."""
        return torch.cat([self.upward.summary(features), self.downward.summary(features.flip(1))], dim=1)


class AttentionPooling(nn.Module):
    """A weighted mean over frames, the weights learnt; the order of frames does not count.

    Source: Ilse, Tomczak and Welling (2018), Attention-based deep multiple instance learning, ICML.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.value = nn.Linear(input_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def weights(self, features: Tensor) -> Tensor:
        """Weight of each frame, float [B, T], summing to 1."""
        return self.score(torch.tanh(self.value(features))).squeeze(-1).softmax(dim=1)

    def summary(self, features: Tensor) -> Tensor:
        return torch.einsum("bt,bth->bh", self.weights(features), self.value(features))


class MeanPooling(nn.Module):
    """The plain mean over frames, then a linear map to `hidden_size`: a clip as a bag of pictures."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.value = nn.Linear(input_size, hidden_size)

    def summary(self, features: Tensor) -> Tensor:
        return self.value(features.mean(dim=1))


TEMPORALS = {
    "lstm": KerasLSTM,
    "gru": GRU,
    "bilstm": BidirectionalLSTM,
    "attention": AttentionPooling,
    "mean": MeanPooling,
}
