use super::*;

/// Inputs that have a meaning of their own, with both signs.
const SPECIAL: [f32; 32] = [
    0.0,
    f32::from_bits(1),
    f32::from_bits(0x007f_ffff),
    f32::MIN_POSITIVE,
    f32::from_bits(0x0080_0001),
    1e-30,
    1e-10,
    f32::EPSILON,
    0.125,
    0.25,
    0.5,
    std::f32::consts::LN_2,
    std::f32::consts::FRAC_1_SQRT_2,
    std::f32::consts::FRAC_PI_4,
    1.0,
    std::f32::consts::SQRT_2,
    std::f32::consts::FRAC_PI_2,
    2.0,
    3.0,
    std::f32::consts::PI,
    4.0,
    10.0,
    100.0,
    8_388_607.0,
    8_388_608.0,
    16_777_215.0,
    16_777_216.0,
    2_147_483_648.0,
    1e38,
    f32::MAX,
    f32::INFINITY,
    f32::NAN,
];

/// Places where a method, a clamp or the kind of the result changes.
const THRESHOLDS: [f32; 29] = [
    0.0,
    1e-10,
    0.346_573_6,
    0.414_213_57,
    0.707_106_77,
    std::f32::consts::FRAC_PI_4,
    0.9375,
    1.0,
    std::f32::consts::SQRT_2,
    2.0,
    4.0,
    9.010_913,
    10.0,
    13.0,
    14.17,
    14.5,
    16.635_532,
    17.33,
    20.0,
    87.336_55,
    88.722_84,
    89.0,
    90.0,
    103.972_08,
    105.0,
    108.66,
    110.0,
    1_048_576.0,
    3.0e38,
];

fn unary_inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(4099).map(f32::from_bits).collect();
    for s in SPECIAL {
        x.extend([s, -s]);
    }
    for t in THRESHOLDS {
        for d in -300i32..300 {
            let v = f32::from_bits(t.to_bits().saturating_add_signed(d));
            x.extend([v, -v]);
        }
    }
    x
}

fn apply<E: Copy + Default>(f: Unary<E>, x: &[E]) -> Vec<E> {
    let mut y = vec![E::default(); x.len()];
    // SAFETY: x and y are of one length; the tables come from `all_supported`.
    unsafe { f(x.as_ptr(), y.as_mut_ptr(), x.len()) };
    y
}

fn apply2<E: Copy + Default>(f: Binary<E>, x: &[E], z: &[E]) -> Vec<E> {
    assert_eq!(x.len(), z.len());
    let mut y = vec![E::default(); x.len()];
    // SAFETY: the three are of one length; the tables come from `all_supported`.
    unsafe { f(x.as_ptr(), z.as_ptr(), y.as_mut_ptr(), x.len()) };
    y
}

#[test]
fn unary_f32_within_bounds() {
    let x = unary_inputs();
    let x64: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    for f in Function::ALL {
        let truth = apply(Table::<f64>::detect().unary(f), &x64);
        for table in Table::<f32>::all_supported() {
            for ((&x, y), &t) in x.iter().zip(apply(table.unary(f), &x)).zip(&truth) {
                let error = ulp_error(y, t);
                assert!(
                    error <= f.bound(),
                    "{} of {x:e} on {}: {y:e} for {t:e}, off by {error} ulp",
                    f.name(),
                    table.instruction_set,
                );
            }
        }
    }
}

/// The sign of a zero is beyond what a distance can tell.
#[test]
fn zeros_keep_their_signs() {
    use Function::*;
    let x: Vec<f32> = (0..16).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 }).collect();
    for table in Table::<f32>::all_supported() {
        for f in [Expm1, Log1p, Tanh, Silu, Erf, Gelu, Sin] {
            for (x, y) in x.iter().zip(apply(table.unary(f), &x)) {
                assert_eq!(x.to_bits(), y.to_bits(), "{} of {x} on {}", f.name(), table.instruction_set);
            }
        }
        for f in [Exp, Cos] {
            assert_eq!(apply(table.unary(f), &x), [1.0; 16], "{}", f.name());
        }
        assert_eq!(apply(table.unary(Ln), &x), [f32::NEG_INFINITY; 16]);
        assert_eq!(apply(table.unary(Ln), &[1.0; 16]).map_bits(), [0; 16]);
        assert_eq!(apply(table.unary(NormalCdf), &x), [0.5; 16]);
        assert_eq!(apply(table.unary(Sigmoid), &x), [0.5; 16]);
    }
}

trait MapBits {
    fn map_bits(&self) -> Vec<u32>;
}

impl MapBits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|v| v.to_bits()).collect()
    }
}

#[test]
fn limits() {
    use Function::*;
    const INF: f32 = f32::INFINITY;
    let cases = [
        (Exp, -INF, 0.0),
        (Exp, -200.0, 0.0),
        (Exp, 88.73, INF),
        (Exp, INF, INF),
        (Expm1, -INF, -1.0),
        (Expm1, 89.5, INF),
        (Expm1, INF, INF),
        (Ln, INF, INF),
        (Log1p, -1.0, -INF),
        (Log1p, INF, INF),
        (Tanh, INF, 1.0),
        (Tanh, -30.0, -1.0),
        (Sigmoid, INF, 1.0),
        (Sigmoid, -INF, 0.0),
        (Silu, INF, INF),
        (Silu, 1e30, 1e30),
        (Softplus, INF, INF),
        (Softplus, -INF, 0.0),
        (Softplus, 1e30, 1e30),
        (Erf, INF, 1.0),
        (Erf, -INF, -1.0),
        (NormalCdf, INF, 1.0),
        (NormalCdf, -INF, 0.0),
        (NormalCdf, -1e30, 0.0),
        (Gelu, INF, INF),
        (Gelu, 1e30, 1e30),
    ];
    for table in Table::<f32>::all_supported() {
        for (f, x, y) in cases {
            assert_eq!(apply(table.unary(f), &[x; 16]), [y; 16], "{} of {x} on {}", f.name(), table.instruction_set);
        }
        // Far below zero they are as small as can be, and negative still.
        for (f, x) in [(Silu, -110.0), (Silu, -1e30), (Silu, -INF), (Gelu, -15.0), (Gelu, -1e30), (Gelu, -INF)] {
            let y = apply(table.unary(f), &[x; 16]);
            assert_eq!(y.map_bits(), [(-0.0f32).to_bits(); 16], "{} of {x} on {}", f.name(), table.instruction_set);
        }
        for (f, x) in [(Ln, -1.0), (Ln, -INF), (Log1p, -1.5), (Log1p, -INF), (Sin, INF), (Cos, -INF)] {
            let y = apply(table.unary(f), &[x; 16]);
            assert!(y.iter().all(|y| y.is_nan()), "{} of {x} on {}", f.name(), table.instruction_set);
        }
        for f in Function::ALL {
            assert!(apply(table.unary(f), &[f32::NAN; 16]).iter().all(|y| y.is_nan()), "{}", f.name());
        }
    }
}

/// The results must not depend on where in the array an element stands, on the
/// alignment, nor on whether the output is the input; and nothing beyond the n
/// elements may be written.
#[test]
fn in_place_at_any_offset_and_length() {
    let x: Vec<f32> = (0..200).map(|i| (i as f32 * 0.37).sin() * 12.0 + 0.01).collect();
    for table in Table::<f32>::all_supported() {
        for f in Function::ALL {
            let y = apply(table.unary(f), &x);
            for n in [0, 1, 7, 16, 32, 48, 80, 112] {
                for offset in 0..4 {
                    let mut z = x.clone();
                    let at = z[offset..].as_mut_ptr();
                    // SAFETY: offset + n <= 200, and the input may be the output.
                    unsafe { table.unary(f)(at, at, n) };
                    let mut expected = x.clone();
                    expected[offset..offset + n].copy_from_slice(&y[offset..offset + n]);
                    assert_eq!(z.map_bits(), expected.map_bits(), "{} {n} {offset}", f.name());
                }
            }
        }
        let pow = table.binary(BinaryFunction::Pow);
        let z: Vec<f32> = x.iter().rev().copied().collect();
        let y = apply2(pow, &x, &z);
        for n in [16, 48] {
            let (mut a, mut b) = (x.clone(), z.clone());
            // SAFETY: all are 200 long, and the output may be either input.
            unsafe {
                pow(a.as_ptr(), z.as_ptr(), a.as_mut_ptr(), n);
                pow(x.as_ptr(), b.as_ptr(), b.as_mut_ptr(), n);
            }
            assert_eq!(a[..n].to_vec().map_bits(), y[..n].to_vec().map_bits());
            assert_eq!(b[..n].to_vec().map_bits(), y[..n].to_vec().map_bits());
            assert_eq!(a[n..], x[n..]);
        }
    }
}

/// Whatever vectors a machine has, if it fuses, the results are those of the same
/// expressions evaluated one element at a time.
#[test]
fn fused_tables_agree_with_scalar_evaluation() {
    use kernels::*;
    fn one<K: Elementwise>(x: f32) -> f32 {
        let mut y = [K::at::<true>(x)];
        K::patch(&[x], &mut y);
        y[0]
    }
    let scalar: [fn(f32) -> f32; Function::ALL.len()] = [
        one::<Exp>,
        one::<Expm1>,
        one::<Ln>,
        one::<Log1p>,
        one::<Tanh>,
        one::<Sigmoid>,
        one::<Silu>,
        one::<Softplus>,
        one::<Erf>,
        one::<NormalCdf>,
        one::<Gelu>,
        one::<Sin>,
        one::<Cos>,
    ];
    let x = unary_inputs();
    for table in Table::<f32>::all_supported().iter().filter(|t| t.instruction_set != InstructionSet::Portable) {
        for (f, one) in Function::ALL.into_iter().zip(scalar) {
            for (&x, a) in x.iter().zip(apply(table.unary(f), &x)).step_by(5) {
                let b = one(x);
                let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(same, "{} of {x:e}: {a:e} on {}, {b:e} alone", f.name(), table.instruction_set);
            }
        }
    }
}

#[test]
fn pow_within_bounds() {
    let (mut x, mut z) = (Vec::new(), Vec::new());
    let mut values: Vec<f32> = SPECIAL.iter().flat_map(|&v| [v, -v]).collect();
    values.extend((0..=u32::MAX).step_by(9_000_011).map(f32::from_bits));
    for &a in &values {
        for &b in &values {
            x.push(a);
            z.push(b);
        }
    }
    for i in 0..200_000u32 {
        let a = f32::from_bits(1 + i * 10_691);
        let t = -151.0 + 280.0 * f64::from(i % 997) / 996.0;
        x.push(a);
        z.push((t / f64::from(a).log2()) as f32);
    }
    for table in Table::<f32>::all_supported() {
        let y = apply2(table.binary(BinaryFunction::Pow), &x, &z);
        for ((&x, &z), y) in x.iter().zip(&z).zip(y) {
            let t = f64::from(x).powf(f64::from(z));
            let error = ulp_error(y, t);
            assert!(
                error <= BinaryFunction::Pow.bound(),
                "{x:e} to the {z:e} on {}: {y:e} for {t:e}, off by {error} ulp",
                table.instruction_set,
            );
            if t == 0.0 {
                assert_eq!(y.is_sign_negative(), t.is_sign_negative(), "{x:e} to the {z:e}");
            }
        }
    }
}

/// The f64 functions against values computed to fifty digits with mpmath.
#[test]
fn f64_against_known_values() {
    use Function::*;
    let cases: &[(Function, f64, f64)] = &[
        (Exp, -700.5, 5.980196118639791e-305),
        (Exp, -1.25, 0.2865047968601901),
        (Exp, 3e-09, 1.000000003),
        (Exp, 0.7, 2.0137527074704766),
        (Exp, 700.5, 1.6721859620674984e+304),
        (Expm1, -40.0, -1.0),
        (Expm1, -0.3, -0.2591817793182821),
        (Expm1, -1e-12, -9.999999999995e-13),
        (Expm1, 1e-05, 1.0000050000166668e-05),
        (Expm1, 0.6, 0.8221188003905089),
        (Expm1, 50.0, 5.184705528587072e+21),
        (Ln, 1e-300, -690.7755278982137),
        (Ln, 0.3, -1.2039728043259361),
        (Ln, 0.9999, -0.00010000500033334732),
        (Ln, 1.0001, 9.999500033329732e-05),
        (Ln, 7.0, 1.9459101490553132),
        (Ln, 1e+300, 690.7755278982137),
        (Log1p, -0.9999, -9.210340371976294),
        (Log1p, -1e-09, -1.0000000005000001e-09),
        (Log1p, 1e-14, 9.99999999999995e-15),
        (Log1p, 0.3, 0.26236426446749106),
        (Log1p, 10000000000.0, 23.025850930040455),
        (Tanh, -3.0, -0.9950547536867305),
        (Tanh, -1e-09, -1e-09),
        (Tanh, 0.001, 0.0009999996666668),
        (Tanh, 0.5, 0.46211715726000974),
        (Tanh, 19.0, 0.9999999999999999),
        (Sigmoid, -700.0, 9.85967654375977e-305),
        (Sigmoid, -40.0, 4.248354255291589e-18),
        (Sigmoid, -1.5, 0.18242552380635635),
        (Sigmoid, 1e-09, 0.50000000025),
        (Sigmoid, 2.0, 0.8807970779778824),
        (Sigmoid, 30.0, 0.9999999999999064),
        (Silu, -710.0, -3.1781632202293424e-306),
        (Silu, -40.0, -1.6993417021166355e-16),
        (Silu, -1.5, -0.2736382857095345),
        (Silu, -1e-09, -4.9999999975e-10),
        (Silu, 0.3, 0.17233275504349768),
        (Silu, 2.0, 1.7615941559557649),
        (Silu, 30.0, 29.999999999997193),
        (Softplus, -700.0, 9.85967654375977e-305),
        (Softplus, -40.0, 4.248354255291589e-18),
        (Softplus, -1.5, 0.2014132779827524),
        (Softplus, 1e-09, 0.6931471810599453),
        (Softplus, 2.0, 2.1269280110429727),
        (Softplus, 30.0, 30.000000000000092),
        (Erf, -2.5, -0.999593047982555),
        (Erf, -1e-09, -1.1283791670955127e-09),
        (Erf, 0.3, 0.3286267594591274),
        (Erf, 0.9, 0.7969082124228322),
        (Erf, 1.7, 0.9837904585907745),
        (NormalCdf, -37.0, 5.725571222524577e-300),
        (NormalCdf, -30.3, 5.731723503315496e-202),
        (NormalCdf, -14.1, 1.8988485212291758e-45),
        (NormalCdf, -9.7, 1.507493168810205e-22),
        (NormalCdf, -5.3, 5.790134039964594e-08),
        (NormalCdf, -2.2, 0.013903447513498604),
        (NormalCdf, -0.7, 0.24196365222307303),
        (NormalCdf, -1e-09, 0.49999999960105773),
        (NormalCdf, 0.4, 0.6554217416103242),
        (NormalCdf, 3.0, 0.9986501019683699),
        (Gelu, -37.0, -2.1184613523340935e-298),
        (Gelu, -9.7, -1.4622683737458985e-21),
        (Gelu, -2.2, -0.030587584529696933),
        (Gelu, -1e-09, -4.999999996010577e-10),
        (Gelu, 0.4, 0.2621686966441297),
        (Gelu, 2.0, 1.9544997361036416),
        (Gelu, 9.0, 9.0),
        (Sin, -355.0, 3.014435335948845e-05),
        (Sin, 1e-09, 1e-09),
        (Sin, 0.7, 0.644217687237691),
        (Sin, 100.0, -0.5063656411097588),
        (Sin, 1e+22, -0.8522008497671888),
        (Cos, -11.0, 0.004425697988050785),
        (Cos, 0.7, 0.7648421872844885),
        (Cos, 100.0, 0.8623188722876839),
        (Cos, 1e+22, 0.523214785395139),
    ];
    for table in Table::<f64>::all_supported() {
        for &(f, x, truth) in cases {
            let y = apply(table.unary(f), &[x; 8]);
            let error = ((y[3] - truth) / truth).abs();
            assert!(error < 1e-15, "{} of {x:e}: {} for {truth:e}, off by {error:e}", f.name(), y[3]);
        }
    }
}

#[test]
fn f64_special_values() {
    use Function::*;
    const INF: f64 = f64::INFINITY;
    let cases = [
        (Exp, -INF, 0.0),
        (Exp, INF, INF),
        (Expm1, -INF, -1.0),
        (Ln, 0.0, -INF),
        (Log1p, -1.0, -INF),
        (Tanh, -INF, -1.0),
        (Sigmoid, -INF, 0.0),
        (Sigmoid, INF, 1.0),
        (Silu, INF, INF),
        (Softplus, -INF, 0.0),
        (Softplus, INF, INF),
        (Erf, -INF, -1.0),
        (NormalCdf, -INF, 0.0),
        (NormalCdf, INF, 1.0),
        (Gelu, INF, INF),
        (NormalCdf, 0.0, 0.5),
        (Cos, 0.0, 1.0),
    ];
    let table = Table::<f64>::detect();
    for (f, x, y) in cases {
        assert_eq!(apply(table.unary(f), &[x; 8]), [y; 8], "{} of {x}", f.name());
    }
    for f in [Expm1, Log1p, Tanh, Silu, Erf, Gelu, Sin] {
        assert!(apply(table.unary(f), &[-0.0; 8]).iter().all(|y| y.to_bits() == (-0.0f64).to_bits()));
    }
    for (f, x) in [(Silu, -1e30), (Silu, -INF), (Gelu, -1e30), (Gelu, -INF)] {
        assert!(apply(table.unary(f), &[x; 8]).iter().all(|y| y.to_bits() == (-0.0f64).to_bits()), "{}", f.name());
    }
    for f in Function::ALL {
        assert!(apply(table.unary(f), &[f64::NAN; 8]).iter().all(|y| y.is_nan()), "{}", f.name());
    }
    let pow = table.binary(BinaryFunction::Pow);
    assert_eq!(apply2(pow, &[-2.0; 8], &[3.0; 8]), [-8.0; 8]);
}

#[test]
fn discriminants_index_the_tables() {
    for (i, f) in Function::ALL.iter().enumerate() {
        assert_eq!(*f as usize, i);
    }
    for (i, f) in BinaryFunction::ALL.iter().enumerate() {
        assert_eq!(*f as usize, i);
    }
}

#[test]
fn ulp_errors() {
    assert_eq!(ulp_error(1.0, 1.0), 0.0);
    assert_eq!(ulp_error(1.0 + f32::EPSILON, 1.0), 1.0);
    assert_eq!(ulp_error(f32::from_bits(3), 0.0), 3.0);
    assert_eq!(ulp_error(f32::NAN, f64::NAN), 0.0);
    assert_eq!(ulp_error(f32::INFINITY, 1e39), 0.0);
    assert_eq!(ulp_error(-f32::INFINITY, 1e39), f64::INFINITY);
    assert_eq!(ulp_error(f32::NAN, 1.0), f64::INFINITY);
    assert_eq!(ulp_error(1.0, f64::NAN), f64::INFINITY);
}
