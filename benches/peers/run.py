#!/usr/bin/env python3
"""Compare a training step with what a user would pick instead, on the same sizes, in turn, in one run.

    pip install -r benches/peers/requirements.txt
    python benches/peers/run.py [options] [CELL,B,T,I,H ...]

For each size this runs `cargo bench --bench step_time`, then each of the peers in `peers.py`, and so on for as many
rounds as asked for: what else the machine does meets all of them. With one thread all are pinned to one core, where
there is a `taskset`. With `--shape many-to-one` the gradient is given of the last step's output only, as a classifier
of sequences has it: try `--shape many-to-one LSTM,16,1000,16,128 GRU,16,1000,16,128`. Megabytes, on Linux, are what the process grows by at most: inputs, weights, and what compiling
takes. Every measurement is printed as a line of JSON when it is made; a table in markdown comes last:
medians in milliseconds, and how many times as long a peer takes.

Peers: `torch` is PyTorch's nn module, `eager` the same cell written by hand, `compile` that under torch.compile
(which unrolls the loop: count in minutes for long sequences), `jax` is jit of grad of lax.scan with the input product
hoisted by hand. A training step is forward over the whole sequence, backward from a given gradient of every output,
and the gradients of all weights, none of the input. torch.nn.GRU resets behind the recurrent product: it
has one product a step, where all others' GRU, which reset before it, have two, one behind the other.
"""
import argparse
import collections
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SIZES = [f"{cell},{size}" for size in ("64,28,28,128", "32,100,256,256") for cell in ("RNN", "GRU", "LSTM")]
WHO = {"torch": "torch.nn", "eager": "torch.eager", "compile": "torch.compile", "jax": "jax.scan"}


def lines(command):
    """The lines of JSON that a command prints, passed on as they come."""
    with subprocess.Popen(command, cwd=HERE.parent.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("{"):
                print(line, end="", flush=True)
                yield json.loads(line)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")


def measure(options):
    """size → who → measurements."""
    pin = ["taskset", "-c", str(options.core)] if options.threads == 1 and shutil.which("taskset") else []
    common = ["--threads", str(options.threads), "--seconds", str(options.seconds), "--shape", options.shape]
    subprocess.run(["cargo", "bench", "--bench", "step_time", "--no-run"], cwd=HERE.parent.parent, check=True)
    ours = [*pin, "cargo", "bench", "--quiet", "--bench", "step_time", "--", "--json", *common]
    peers = [[*pin, sys.executable, HERE / "peers.py", *common, "--only", peer] for peer in options.peers]
    found = {size: collections.defaultdict(list) for size in options.sizes}
    for _ in range(options.rounds):
        for size, by_who in found.items():
            for command in [ours, *peers]:
                for line in lines([*command, size]):
                    by_who[line["who"]].append(line)
    return found


def table(found, peers):
    peers = [WHO[peer] for peer in peers]
    yield ["cell", "B,T,I,H", "retrograd ms", "of peak", "compiled in ms", "memory", *(f"{p} ms" for p in peers)]
    for size, by_who in found.items():
        middle = lambda who, key: statistics.median(line[key] for line in by_who[who])
        cell, numbers = size.split(",", 1)
        ours = middle("retrograd", "ms")
        row = [cell, numbers, f"{ours:.3g}", f"{middle('retrograd', 'share_of_peak'):.0%}"]
        row.append(f"{middle('retrograd', 'compile_ms'):.1f}")
        grown = lambda who: f"{middle(who, 'grown') / 1e6:.0f} MB" if by_who[who][0].get("grown") else "memory unknown"
        row.append(grown("retrograd"))
        for peer in peers:
            if peer not in by_who:
                row.append("–")
                continue
            ms = middle(peer, "ms")
            compiled = f", compiled in {middle(peer, 'compile_s'):.1f} s" if "compile_s" in by_who[peer][0] else ""
            row.append(f"{ms:.3g} ({ms / ours:.2f}×, {grown(peer)}{compiled})")
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, default=0, help="the core to pin to with one thread")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each measurement")
    parser.add_argument("--shape", default="many-to-many", choices=["many-to-many", "many-to-one"],
                        help="whether the gradient is given at all steps or at the last")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", default="torch,eager,jax", help="of torch, eager, compile, jax")
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="CELL,B,T,I,H",
                        help="CELL is one of RNN, GRU, LSTM, PEEPHOLE, LNLSTM, MGU, MINGRU")
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    if not set(options.peers) <= set(WHO):
        parser.error(f"peers are {', '.join(WHO)}")
    options.sizes = [size.upper() for size in options.sizes]
    rows = list(table(measure(options), options.peers))
    rows.insert(1, ["---", "---", *["---:"] * (len(rows[0]) - 2)])
    print()
    for row in rows:
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    main()
