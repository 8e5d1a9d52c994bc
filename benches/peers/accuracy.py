#!/usr/bin/env python3
"""How near to the truth are our 32 bits, and PyTorch's? Run at the root of the repository:

    python benches/peers/accuracy.py [--dir DIR]

The truth is what our code computes in 64 bits, which PyTorch in 64 bits agrees with (it is checked). Cells of one to
three layers and 1 to 130 units, on the same weights and inputs: 25 steps, 8 samples, gradients of a weighted sum of all
outputs. For each array, an output or the gradient of a parameter, the ratio of the root mean square errors: below 1 ours
is nearer. Prints their geometric means and how many are below 1, by cell and array.
"""
import argparse, json, math, subprocess, sys, tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

ap = argparse.ArgumentParser()
ap.add_argument("--dir", help="files that `cargo bench --bench accuracy -- DIR` has written")
a = ap.parse_args()
torch.set_num_threads(1)
NETS = dict(rnn=torch.nn.RNN, gru=torch.nn.GRU, lstm=torch.nn.LSTM)


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.readline())
        arrays = {}
        for name, shape in header:
            n = math.prod(shape)
            arrays[name] = np.frombuffer(f.read(8 * n), "<f8").reshape(shape)
        return arrays


def reorder(cell, w, units):
    """Our LSTM's gates are i, f, o, g along the last axis, PyTorch's i, f, g, o; this is its own inverse."""
    if cell != "lstm":
        return w
    i, f, o, g = np.split(w, 4, -1)
    return np.concatenate([i, f, g, o], -1)


def torch_results(cell, layers, units, given, dtype):
    net = NETS[cell](units, units, layers).to(dtype)
    tensor = lambda x: torch.tensor(np.ascontiguousarray(x), dtype=dtype)
    with torch.no_grad():
        for l in range(layers):
            if cell == "gru":
                values = [given[f"l{l}.{n}"] for n in ("x.w", "h.w", "x.b", "h.b")]
            else:
                name = {"rnn": "cell", "lstm": "gates"}[cell]
                w = reorder(cell, given[f"l{l}.{name}.w"], units)
                b = reorder(cell, given[f"l{l}.{name}.b"], units)
                values = [w[units:], w[:units], b, np.zeros_like(b)]
            for n, v in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), values):
                getattr(net, f"{n}_l{l}").copy_(tensor(v.T))
    starts = {n: torch.stack([tensor(given[f"{n}{l}"]) for l in range(layers)]).requires_grad_() for n in ("h", "c")
              if f"{n}0" in given}
    x = tensor(given["x"])
    expanded = [s[:, None].expand(-1, x.shape[1], -1).contiguous() for s in starts.values()]
    y, _ = net(x, tuple(expanded) if cell == "lstm" else expanded[0])
    (y * tensor(given["g"])).sum().backward()
    out = {"y": y.detach().double().numpy()}
    for n, s in starts.items():
        for l in range(layers):
            out[f"d.{n}{l}"] = s.grad[l].double().numpy()
    for l in range(layers):
        grad = lambda n: getattr(net, f"{n}_l{l}").grad.double().numpy().T
        if cell == "gru":
            for ours, n in (("x.w", "weight_ih"), ("h.w", "weight_hh"), ("x.b", "bias_ih"), ("h.b", "bias_hh")):
                out[f"d.l{l}.{ours}"] = grad(n)
        else:
            name = {"rnn": "cell", "lstm": "gates"}[cell]
            w = np.concatenate([grad("weight_hh"), grad("weight_ih")])
            out[f"d.l{l}.{name}.w"] = reorder(cell, w, units)
            out[f"d.l{l}.{name}.b"] = reorder(cell, grad("bias_ih"), units)
    return out


def kind(name):
    if name == "y":
        return "y"
    if not name.startswith("d.l"):
        return "d" + name[2] + "0"
    return "dW" if name.endswith(".w") else "db"


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


def main(directory):
    ratios = defaultdict(list)
    for path in sorted(Path(directory).iterdir()):
        cell, layers, units = path.name.split("_")
        layers, units = int(layers), int(units)
        arrays = read(path)
        given = {n[3:]: x for n, x in arrays.items() if n.startswith("in ")}
        single = torch_results(cell, layers, units, given, torch.float32)
        double = torch_results(cell, layers, units, given, torch.float64)
        for name, theirs in single.items():
            truth, ours = arrays["f64 " + name], arrays["f32 " + name]
            off = rms(truth - double[name]) / rms(truth)
            assert off < 1e-11, f"{path.name} {name}: PyTorch in 64 bits computes something else ({off:.1e})"
            # Both may have no error at all in an array of a few numbers.
            mine, other = (max(rms(x - truth) / rms(truth), 1e-12) for x in (ours, theirs))
            ratios[cell, kind(name)].append(mine / other)
    mean = lambda r: math.exp(sum(map(math.log, r)) / len(r))
    row = lambda cell, what, r: print(f"{cell:6}{what:5}{len(r):8}{mean(r):10.2f}{sum(x < 1 for x in r):10}")
    print(f"{'cell':6}{'':5}{'arrays':>8}{'ratio':>10}{'nearer':>10}")
    for (cell, what), r in sorted(ratios.items()):
        row(cell, what, r)
    row("all", "", [x for r in ratios.values() for x in r])


if a.dir:
    main(a.dir)
else:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["cargo", "bench", "-q", "--bench", "accuracy", "--", directory], check=True, stdout=sys.stderr)
        main(directory)
