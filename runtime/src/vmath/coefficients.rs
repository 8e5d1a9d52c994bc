//! Written by `derive.py`, which says what each polynomial is: edit that, not this.
//!
//! Coefficients run from the constant term upwards.

#![allow(clippy::excessive_precision, reason = "derived numbers, as the script prints them")]
#![allow(clippy::unreadable_literal, reason = "as above")]
#![allow(clippy::approx_constant, reason = "one that is close to a constant is not it")]

/// q with e^r = 1 + r + r^2 q(r) on |r| <= ln(2)/2, relative to e^r - 1.
/// Weighted error 2^-25.8.
pub const EXP: [f32; 5] = [0.49999997, 0.16666542, 0.041667204, 0.008366647, 0.0013882497];

/// P with ln(1+f) = f - f^2/2 + f^3 P(f) on sqrt(1/2)-1 <= f <= sqrt(2)-1, relative.
/// Weighted error 2^-28.2.
pub const LOG1P: [f32; 9] =
    [0.33333313, -0.2500001, 0.20002119, -0.16667996, 0.14219552, -0.124055885, 0.11888161, -0.11675651, 0.067466415];

/// P with erf(x) = x + x P(x^2) on |x| <= 15/16, relative.
/// Weighted error 2^-26.6.
pub const ERF_NEAR: [f32; 7] =
    [0.12837917, -0.37612632, 0.11283679, -0.026858497, 0.00519883, -0.0008118075, 8.2674625e-05];

/// P with erfc(t) = e^P(t) on 15/16 <= t <= 4, relative to erf.
/// Weighted error 2^-26.0.
pub const ERF_FAR: [f32; 8] =
    [0.00018034862, -1.1295422, -0.63329184, -0.10834077, 0.025158709, -0.0041860007, 0.00043755054, -2.1362635e-05];

/// S with sin r = r + r^3 S(r^2) on |r| <= pi/4, relative.
/// Weighted error 2^-37.5.
pub const SIN: [f64; 4] = [-0.16666666640776368, 0.008333329302428083, -0.00019839311488171593, 2.718114139759886e-06];

/// C with cos r = 1 - r^2/2 + r^4 C(r^2) on |r| <= pi/4, relative.
/// Weighted error 2^-42.9.
pub const COS: [f64; 4] = [0.04166666661945373, -0.0013888883496860284, 2.479945931028404e-05, -2.7205684646097625e-07];

/// P with 2^f = P(f) on |f| <= 1/2, relative.
/// Weighted error 2^-34.5.
pub const EXP2: [f64; 8] = [
    0.9999999999616217,
    0.693147180728715,
    0.24022651198753325,
    0.05550410352834958,
    0.009618027172937546,
    0.001333392285450625,
    0.0001546931725216537,
    1.5201901148088722e-05,
];

/// P with log2 m = s P(s^2), s = (m-1)/(m+1), on sqrt(1/2) <= m <= sqrt(2), relative.
/// Weighted error 2^-45.1.
pub const LOG2: [f64; 6] = [
    2.88539008177785,
    0.9617966941134943,
    0.5770779423173283,
    0.4122092575213467,
    0.31990547233085875,
    0.28290355554411634,
];

/// P with Phi(-t) = e^(-t^2/2) P(u), u = 1/(1 + t/4), on 0 <= t <= 14.5, relative.
/// Weighted error 2^-31.8.
pub const MILLS: [f64; 12] = [
    2.7782220792496508e-06,
    0.09965861277652192,
    0.10068725171041258,
    0.08656216236663075,
    0.11421980460590793,
    -0.04582004925366147,
    0.29644526849089897,
    -0.3881061389215039,
    0.4638959752021077,
    -0.3255502164785382,
    0.11392397834651342,
    -0.015919426931770356,
];

/// pi/2 as a sum of two 33-bit pieces and a remainder.
pub const HALF_PI: [f64; 3] = [1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21];

/// 2/pi to 256 fraction bits, most significant word first; its integer part is word 0.
pub const TWO_OVER_PI: [u64; 5] =
    [0x0000000000000000, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561];
