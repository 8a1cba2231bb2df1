"""The same classifier in PyTorch."""

import sys
from itertools import pairwise
from pathlib import Path

import torch
from problem import LAYERS, LEARNING_RATE, data, epochs, finish, initial_weights

from adabelief_torch import AdaBelief

train_x, train_y, test_x, test_y = (torch.from_numpy(x) for x in data())
weights = {name: torch.from_numpy(w) for name, w in initial_weights().items()}

linears = [torch.nn.Linear(n, m) for n, m in pairwise(LAYERS)]
with torch.no_grad():
    for i, linear in enumerate(linears):
        linear.weight.copy_(weights[f"kernel{i}"].T)
        linear.bias.copy_(weights[f"bias{i}"])
model = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1], torch.nn.ReLU(), linears[2])
optimizer = AdaBelief(model.parameters(), lr=LEARNING_RATE)

losses, accuracies = [], []
for batches in epochs("torch"):
    total = 0.0
    for batch in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(train_x[batch]), train_y[batch].long())
        loss.backward()
        optimizer.step()
        total += loss.item()
    losses.append(total / len(batches))
    with torch.no_grad():
        accuracies.append((model(test_x).argmax(1) == test_y).float().mean().item())

finish("torch", Path(sys.argv[1]), losses, accuracies)
