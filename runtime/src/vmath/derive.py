#!/usr/bin/env python3
"""Derives the polynomial coefficients of the vector maths and writes them to
`coefficients.rs` beside this script.

Each polynomial is the weighted minimax one, found by the Remez exchange: solve
for the polynomial whose weighted error alternates at d + 2 points, move the
points to the extrema of that error, repeat until the extrema level out. The
exchange runs in 50-digit arithmetic on a Chebyshev-spaced grid, which is all
the precision the few dozen coefficients need.

The coefficients are then rounded one by one to the type that evaluates them;
the error quoted beside each polynomial is measured after that rounding (but
before the rounding of the evaluation itself).

Needs mpmath. Run: python3 derive.py && cargo fmt
"""

import struct
from pathlib import Path

import mpmath as mp

mp.mp.dps = 50


def to_f32(v):
    return struct.unpack("<f", struct.pack("<f", float(v)))[0]


def horner(c, x):
    acc = mp.mpf(0)
    for k in reversed(c):
        acc = acc * x + k
    return acc


def remez(f, w, lo, hi, degree, grid=1500, rounds=30):
    """Minimises max |w(x) (f(x) - p(x))| over [lo, hi]."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    xs = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * grid)) for i in range(grid)]
    fs = [f(x) for x in xs]
    ws = [abs(w(x)) for x in xs]
    m = degree + 2
    # Chebyshev spacing of the grid already bunches the ends: spread evenly.
    pick = [round((grid - 1) * i / (m - 1)) for i in range(m)]
    best = None
    for _ in range(rounds):
        a, b = mp.matrix(m, m), mp.matrix(m, 1)
        for i, g in enumerate(pick):
            for j in range(m - 1):
                a[i, j] = xs[g] ** j * ws[g]
            a[i, m - 1] = (-1) ** i
            b[i] = fs[g] * ws[g]
        s = mp.lu_solve(a, b)
        c = [s[j] for j in range(m - 1)]
        err = [ws[i] * (fs[i] - horner(c, xs[i])) for i in range(grid)]
        worst = max(abs(e) for e in err)
        if best is None or worst < best[0]:
            best = (worst, c)
        # One extremum for each run of a sign.
        runs, start = [], 0
        for i in range(1, grid + 1):
            if i == grid or mp.sign(err[i]) != mp.sign(err[start]):
                runs.append(max(range(start, i), key=lambda k: abs(err[k])))
                start = i
        while len(runs) > m:
            if abs(err[runs[0]]) < abs(err[runs[-1]]):
                runs.pop(0)
            else:
                runs.pop()
        if len(runs) < m or worst < abs(s[m - 1]) * mp.mpf("1.0001"):
            break
        pick = runs
    return best[1], xs, fs, ws


def series(term, x):
    """Sums a Taylor series to working precision."""
    acc, k = mp.mpf(0), 0
    while True:
        t = term(k, x)
        acc += t
        if abs(t) <= abs(acc) * mp.mpf(10) ** -48:
            return acc
        k += 1


OUT = []


def emit(name, doc, kind, f, w, lo, hi, degree):
    c, xs, fs, ws = remez(f, w, lo, hi, degree)
    c = [to_f32(v) for v in c] if kind == "f32" else [float(v) for v in c]
    err = max(abs(ws[i] * (fs[i] - horner([mp.mpf(v) for v in c], xs[i]))) for i in range(len(xs)))
    bits = float(mp.log(err, 2))
    print(f"{name:12} degree {degree:2}  weighted error 2^{bits:.1f}")
    OUT.append(f"/// {doc}\n/// Weighted error 2^{bits:.1f}.")
    if kind == "f32":
        body = ", ".join(short_f32(v) for v in c)
    else:
        body = ", ".join(repr(v) for v in c)
    OUT.append(f"pub const {name}: [{kind}; {len(c)}] = [{body}];\n")


def short_f32(v):
    """The shortest decimal that reads back as the same f32."""
    for digits in range(6, 11):
        s = f"{v:.{digits}g}"
        if to_f32(float(s)) == v:
            return s if ("." in s or "e" in s) else s + ".0"
    return repr(v)


HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.002")
emit(
    "EXP",
    "q with e^r = 1 + r + r^2 q(r) on |r| <= ln(2)/2, relative to e^r - 1.",
    "f32",
    lambda r: series(lambda k, v: v**k / mp.factorial(k + 2), r),
    lambda r: r * r / mp.expm1(r),
    -HALF_LN2,
    HALF_LN2,
    4,
)
emit(
    "LOG1P",
    "P with ln(1+f) = f - f^2/2 + f^3 P(f) on sqrt(1/2)-1 <= f <= sqrt(2)-1, relative.",
    "f32",
    lambda f: series(lambda k, v: (-v) ** k / (k + 3), f),
    lambda f: f**3 / mp.log1p(f),
    mp.sqrt(mp.mpf("0.5")) - 1,
    mp.sqrt(2) - 1,
    8,
)
ERF_SPLIT = mp.mpf("0.9375")
emit(
    "ERF_NEAR",
    "P with erf(x) = x + x P(x^2) on |x| <= 15/16, relative.",
    "f32",
    lambda s: mp.erf(mp.sqrt(s)) / mp.sqrt(s) - 1,
    lambda s: mp.sqrt(s) / mp.erf(mp.sqrt(s)),
    mp.mpf(10) ** -12,
    ERF_SPLIT**2,
    6,
)
emit(
    "ERF_FAR",
    "P with erfc(t) = e^P(t) on 15/16 <= t <= 4, relative to erf.",
    "f32",
    lambda t: mp.log(mp.erfc(t)),
    lambda t: mp.erfc(t),
    ERF_SPLIT,
    4,
    7,
)
QUARTER = (mp.pi / 4 * mp.mpf("1.0001")) ** 2
emit(
    "SIN",
    "S with sin r = r + r^3 S(r^2) on |r| <= pi/4, relative.",
    "f64",
    lambda s: series(lambda k, v: (-1) ** (k + 1) * v**k / mp.factorial(2 * k + 3), s),
    lambda s: s * mp.sqrt(s) / mp.sin(mp.sqrt(s)),
    mp.mpf(10) ** -12,
    QUARTER,
    3,
)
emit(
    "COS",
    "C with cos r = 1 - r^2/2 + r^4 C(r^2) on |r| <= pi/4, relative.",
    "f64",
    lambda s: series(lambda k, v: (-1) ** k * v**k / mp.factorial(2 * k + 4), s),
    lambda s: s * s / mp.cos(mp.sqrt(s)),
    mp.mpf(10) ** -12,
    QUARTER,
    3,
)
emit(
    "EXP2",
    "P with 2^f = P(f) on |f| <= 1/2, relative.",
    "f64",
    lambda f: mp.mpf(2) ** f,
    lambda f: mp.mpf(2) ** -f,
    mp.mpf("-0.5001"),
    mp.mpf("0.5001"),
    7,
)
ATANH = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * mp.mpf("1.0001")) ** 2
emit(
    "LOG2",
    "P with log2 m = s P(s^2), s = (m-1)/(m+1), on sqrt(1/2) <= m <= sqrt(2), relative.",
    "f64",
    lambda s: 2 * mp.atanh(mp.sqrt(s)) / mp.sqrt(s) / mp.log(2),
    lambda s: mp.sqrt(s) / (2 * mp.atanh(mp.sqrt(s)) / mp.log(2)),
    mp.mpf(10) ** -12,
    ATANH,
    5,
)
emit(
    "MILLS",
    "P with Phi(-t) = e^(-t^2/2) P(u), u = 1/(1 + t/4), on 0 <= t <= 14.5, relative.",
    "f64",
    lambda u: mp.exp((4 / u - 4) ** 2 / 2) * mp.erfc((4 / u - 4) / mp.sqrt(2)) / 2,
    lambda u: 1 / (mp.exp((4 / u - 4) ** 2 / 2) * mp.erfc((4 / u - 4) / mp.sqrt(2)) / 2),
    1 / (1 + mp.mpf("14.5") / 4),
    1,
    11,
)

# pi/2 cut into pieces of 33 bits: an integer below 2^20 times one of the first
# two is exact in f64.
half_pi, cuts, rest = mp.pi / 2, [], mp.pi / 2
for _ in range(2):
    step = mp.mpf(2) ** (int(mp.floor(mp.log(rest, 2))) - 32)
    cuts.append(float(mp.floor(rest / step) * step))
    rest -= mp.mpf(cuts[-1])
cuts.append(float(rest))
OUT.append("/// pi/2 as a sum of two 33-bit pieces and a remainder.")
OUT.append(f"pub const HALF_PI: [f64; 3] = [{', '.join(repr(v) for v in cuts)}];\n")

mp.mp.dps = 120
digits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** 256))
words = [(digits >> (64 * (3 - i))) & (2**64 - 1) for i in range(4)]
words = [0] + words
OUT.append("/// 2/pi to 256 fraction bits, most significant word first; its integer part is word 0.")
OUT.append(f"pub const TWO_OVER_PI: [u64; 5] = [{', '.join(f'0x{v:016x}' for v in words)}];\n")

head = (
    "//! Written by `derive.py`, which says what each polynomial is: edit that, not this.\n//!\n"
    "//! Coefficients run from the constant term upwards.\n\n"
    '#![allow(clippy::excessive_precision, reason = "derived numbers, as the script prints them")]\n'
    '#![allow(clippy::unreadable_literal, reason = "as above")]\n'
    '#![allow(clippy::approx_constant, reason = "one that is close to a constant is not it")]\n\n'
)
path = Path(__file__).with_name("coefficients.rs")
path.write_text(head + "\n".join(OUT))
