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
/// This is TensorFlow's `BasicLSTMCell(num_units)` with its `forget_bias` of 1.0, which is added to a bias of 0 there and
/// is where the bias starts here: the same function and, but for weight decay of biases, the same training. (There the
/// rows of the weight are \[x; h\], its columns i, g, f, o.)
///
/// Parameters: `gates.w` `[units + inputs, 4 units]`, `gates.b`. States: `h`, `c`.
#[doc(alias = "BasicLSTMCell")]
#[doc(alias = "basic_lstm")]
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

/// An LSTM whose output goes through a projection, so that many units can remember and few need to be multiplied:
/// ```text
/// [i f o g] = [r; x]·W + b
/// c' = σ(f)⊙c + σ(i)⊙tanh(g)
/// r' = (σ(o)⊙tanh(c'))·W_r
/// ```
/// Sak et al. (2014), "Long short-term memory recurrent neural network architectures for large scale acoustic modeling"
/// (LSTMP), without the peepholes there, like `proj_size` of PyTorch.
///
/// Gives r', of `projection` features. Parameters: `gates.w` `[projection + inputs, 4 units]`, `gates.b`,
/// `projection.w` `[units, projection]`. States: `r` `[projection]`, `c` `[units]`.
///
/// ```
/// use retrograd::{cells, prelude::*};
///
/// let program = Program::record("lstmp", |p| {
///     let x = p.sequence("x", 8);
///     let run = p.scan("lstm", |s| cells::projected_lstm(s, s.at(x), 64, 16));
///     p.output("y", run.all()); // f32[T, B, 16]
/// })?;
/// assert_eq!(program.ty(program.parameter("lstm.gates.w").unwrap().value).shape, [16 + 8, 4 * 64].into());
/// # Ok::<(), RecordErrors>(())
/// ```
#[track_caller]
pub fn projected_lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize, projection: usize) -> Expr<'r> {
    let (r, c) = (s.state("r", projection), s.state("c", units));
    let gates = s.affine_with("gates", concat([r, x]), 4 * units, Init::Glorot, forget_bias());
    let [i, f, o, g] = gates.split();
    let c1 = s.next(c, f.sigmoid() * c + i.sigmoid() * g.tanh());
    s.next(r, s.linear("projection", o.sigmoid() * c1.tanh(), projection))
}

/// An LSTM whose gates do not see h, and share one unit of memory between them, so that nothing but a blend is left in
/// the loop:
/// ```text
/// f = σ(x·W_f + b_f)
/// i = σ(x·W_i + b_i)
/// n = x·W_n + b_n
/// h' = f/(f + i)⊙h + i/(f + i)⊙n
/// ```
/// Feng et al. (2024), "Were RNNs all we needed?" There is no output gate and no c. With a_f and a_i the arguments of
/// the gates, f/(f + i) = σ(softplus(−a_i) − softplus(−a_f)): written so, two gates that are shut divide nothing by 0.
///
/// Parameters: `x.w` `[inputs, 3 units]`, `x.b`. State: `h`.
#[track_caller]
pub fn min_lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let h = s.state("h", units);
    let [f, i, n] = s.affine("x", x, 3 * units).split();
    let kept = ((-i).softplus() - (-f).softplus()).sigmoid();
    s.next(h, kept * h + (1.0 - kept) * n)
}
