//! Long short-term memory and its relatives: a state c whose only way from step to step is f⊙c + i⊙g, so that
//! gradients last.

use crate::prelude::*;

/// The bias of gates i, f, o, g: the forget gate starts open. Jozefowicz et al. (2015), "An empirical exploration of
/// recurrent network architectures".
fn forget_bias() -> Init {
    Init::Pieces([0.0, 1.0, 0.0, 0.0].map(Init::Constant).to_vec())
}

/// ```text
/// [i f o g] = [h; x]·W + b
/// c' = σ(f)⊙c + σ(i)⊙tanh(g)
/// h' = σ(o)⊙tanh(c')
/// ```
/// Hochreiter & Schmidhuber (1997), "Long short-term memory", with the forget gate of Gers et al. (2000), "Learning
/// to forget"; its bias starts at 1.
///
/// Parameters: `gates.w` `[units + inputs, 4 units]`, `gates.b`. States: `h`, `c`.
#[track_caller]
pub fn lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let (h, c) = (s.state("h", units), s.state("c", units));
    let gates = s.affine_with("gates", concat([h, x]), 4 * units, Init::Glorot, forget_bias());
    let [i, f, o, g] = gates.split();
    let c1 = s.next(c, f.sigmoid() * c + i.sigmoid() * g.tanh());
    s.next(h, o.sigmoid() * c1.tanh())
}

/// An LSTM whose gates see c, each through a weight of its own for every feature:
/// ```text
/// [i f o g] = [h; x]·W + b
/// c' = σ(f + p_f⊙c)⊙c + σ(i + p_i⊙c)⊙tanh(g)
/// h' = σ(o + p_o⊙c')⊙tanh(c')
/// ```
/// Gers & Schmidhuber (2000), "Recurrent nets that time and count".
///
/// Parameters: those of [`lstm`], and `peephole.i`, `peephole.f`, `peephole.o` `[units]`. States: `h`, `c`.
#[track_caller]
pub fn peephole_lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let (h, c) = (s.state("h", units), s.state("c", units));
    let gates = s.affine_with("gates", concat([h, x]), 4 * units, Init::Glorot, forget_bias());
    let [i, f, o, g] = gates.split();
    let [pi, pf, po] =
        s.scope("peephole", |s| ["i", "f", "o"].map(|p| s.parameter(p, units, Init::Uniform(-0.1, 0.1))));
    let c1 = s.next(c, (f + pf * c).sigmoid() * c + (i + pi * c).sigmoid() * g.tanh());
    s.next(h, (o + po * c1).sigmoid() * c1.tanh())
}

/// An LSTM with normalised gates and normalised output:
/// ```text
/// [i f o g] = LN([h; x]·W + b)
/// c' = σ(f)⊙c + σ(i)⊙tanh(g)
/// h' = σ(o)⊙tanh(LN(c'))
/// ```
/// Ba et al. (2016), "Layer normalization". The forget bias of 1 is the norm's, behind which b is without effect on it.
///
/// Parameters: `gates.w` `[units + inputs, 4 units]`, `gates.b`, `gates_norm.gain`, `gates_norm.bias` `[4 units]`,
/// `c_norm.gain`, `c_norm.bias` `[units]`. States: `h`, `c`.
#[track_caller]
pub fn layer_norm_lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let (h, c) = (s.state("h", units), s.state("c", units));
    let z = s.affine("gates", concat([h, x]), 4 * units);
    let [gain, bias] = s.scope("gates_norm", |s| {
        [s.parameter("gain", 4 * units, Init::Constant(1.0)), s.parameter("bias", 4 * units, forget_bias())]
    });
    let [i, f, o, g] = z.layer_norm(gain, bias, 1e-5).split();
    let c1 = s.next(c, f.sigmoid() * c + i.sigmoid() * g.tanh());
    s.next(h, o.sigmoid() * s.layer_norm("c_norm", c1).tanh())
}
