use ndarray::ArrayD;
use retrograd::compiler::interpret::{interpret, random_values};
use retrograd::compiler::ir::{DType, Extent, Sizes};
use retrograd::prelude::*;
use retrograd::runtime::feed::Feed;
use retrograd::runtime::session::Session;

fn lstm<'r>(s: &Step<'r>, x: Expr<'r>, units: usize) -> Expr<'r> {
    let (h, c) = (s.state("h", units), s.state("c", units));
    let [i, f, o, g] = s.affine("gates", concat([h, x]), 4 * units).split();
    let c1 = s.next(c, f.sigmoid() * c + i.sigmoid() * g.tanh());
    s.next(h, o.sigmoid() * c1.tanh())
}

fn check(program: &Program, sizes: &Sizes) {
    let values = random_values(program, sizes, 7);
    let truth = interpret(program, &values, sizes);
    let mut session = Session::<f64>::new(program, 1).unwrap();
    println!("{}", session.compiled().plan);
    println!("{:?}", session.compiled().times);
    for p in &program.parameters {
        let d = &values[&p.name];
        let a = ArrayD::from_shape_vec(d.ty.shape.0.clone(), d.x.iter().map(|x| x.re).collect()).unwrap();
        session.set_parameter(&p.name, a.view()).unwrap();
    }
    let mut floats: Vec<(String, ArrayD<f32>)> = vec![];
    let mut ints: Vec<(String, ArrayD<i32>)> = vec![];
    for i in &program.inputs {
        let d = &values[&i.name];
        let mut shape = match d.ty.extent {
            Extent::Shared => vec![],
            Extent::Batch => vec![sizes.batch],
            Extent::Time(a) => vec![sizes.steps(a), sizes.batch],
        };
        shape.extend(&d.ty.shape.0);
        if d.ty.dtype == DType::F32 {
            floats.push((
                i.name.clone(),
                ArrayD::from_shape_vec(shape, d.x.iter().map(|x| x.re as f32).collect()).unwrap(),
            ));
        } else {
            ints.push((
                i.name.clone(),
                ArrayD::from_shape_vec(shape, d.x.iter().map(|x| x.re as i32).collect()).unwrap(),
            ));
        }
    }
    let mut feed = Feed::new();
    for (n, a) in &floats {
        feed = feed.f32(n, a.view());
    }
    for (n, a) in &ints {
        feed = feed.i32(n, a.view());
    }
    session.run(&feed).unwrap();
    for (name, d) in &truth.outputs {
        let got = session.output(name).unwrap();
        let worst = got.iter().zip(&d.x).map(|(g, x)| (g - x.re).abs() / x.re.abs().max(1e-3)).fold(0.0, f64::max);
        println!("{name}: {worst:e}");
        assert!(worst < 1e-5, "{name}");
    }
}

#[test]
fn lstm_agrees() {
    let program = Program::record("digits", |p| {
        let rows = p.sequence("rows", 28);
        let label = p.labels("label");
        let run = p.scan("lstm", |s| lstm(s, s.at(rows), 32));
        let logits = p.affine("readout", run.last(), 10);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(label));
    })
    .unwrap();
    check(&program, &Sizes::new(5, 3));
    let joint = program.backward().unwrap();
    check(&joint, &Sizes::new(5, 3));
}
