//! What has a name: parameters, inputs, time axes; and what is checked when it is declared.

use super::Site;
use super::expr::Value as Local;
use super::recording::State;
use crate::error::{Place, RecordErrorKind as Kind};
use crate::ir::{Axis, Extent, Init, Input, Op, Parameter, Shape, Type};

/// The time axis of programs that do not name one.
pub(super) const DEFAULT_AXIS: &str = "time";

impl State {
    /// Whether a name may be used in texts and files; notes if not.
    pub fn check_name(&mut self, site: Site, name: &str) -> bool {
        let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let good = letters && name.starts_with(|c: char| !c.is_ascii_digit());
        if !good {
            self.fail(site, Kind::BadName { name: name.to_string() });
        }
        good
    }

    /// Whether a row can have this shape; notes if not.
    pub fn check_shape(&mut self, site: Site, shape: &Shape) -> bool {
        match shape.checked_len() {
            _ if shape.rank() > Shape::MAX_RANK => self.fail(site, Kind::DeepShape { shape: shape.clone() }),
            _ if shape.0.contains(&0) => self.fail(site, Kind::EmptyShape { shape: shape.clone() }),
            None => self.fail(site, Kind::HugeShape { shape: shape.clone(), limit: Shape::MAX_LEN }),
            Some(_) => return true,
        }
        false
    }

    /// The time axis of a name.
    pub fn axis(&mut self, site: Site, name: &str) -> Option<Axis> {
        if !self.check_name(site, name) {
            return None;
        }
        let axes = &mut self.program.axes;
        let known = axes.iter().position(|a| a == name).unwrap_or(axes.len());
        if known >= usize::from(Axis::MAX) {
            self.fail(site, Kind::TooManyAxes { name: name.to_string() });
            return None;
        }
        if known == axes.len() {
            axes.push(name.to_string());
        }
        Some(Axis(known as u8))
    }

    fn known_parameter(&self, name: &str) -> Option<&Parameter> {
        self.declared.parameters.get(name).map(|&i| &self.program.parameters[i])
    }

    fn known_input(&self, name: &str) -> Option<&Input> {
        self.declared.inputs.get(name).map(|&i| &self.program.inputs[i])
    }

    /// The parameter of a name within the current scopes.
    pub fn parameter(&mut self, site: Site, name: &str, shape: Shape, init: Init, trained: bool) -> Option<Local> {
        if !self.check_name(site, name) || !self.check_shape(site, &shape) || !self.check_init(site, &shape, &init) {
            return None;
        }
        let name = join_name(&self.scopes, name);
        if let Some(known) = self.known_parameter(&name).cloned() {
            let node = self.program.graph.node(known.value);
            if node.ty.shape != shape || known.init != init || known.trained != trained {
                let role = |trained| if trained { "" } else { "a statistic " };
                let first = format!("{}{} {:?}", role(known.trained), node.ty.shape, known.init);
                let (place, again) = (Place(node.location), format!("{}{shape} {init:?}", role(trained)));
                self.fail(site, Kind::ParameterChanged { name, first, again, place });
                return None;
            }
            return Some(Local { frame: 0, value: known.value });
        }
        if let Some(input) = self.known_input(&name) {
            let first = Place(self.program.graph.node(input.value).location);
            self.fail(site, Kind::NameTaken { role: "a parameter", name, taken: "an input", first });
            return None;
        }
        self.program.graph.location = Some(site);
        let ty = Type::float(Extent::Shared, shape);
        let value = self.program.graph.leaf(Op::Parameter(name.clone()), ty);
        self.declared.parameters.insert(name.clone(), self.program.parameters.len());
        self.program.parameters.push(Parameter { name, value, init, trained });
        Some(Local { frame: 0, value })
    }

    fn check_init(&mut self, site: Site, shape: &Shape, init: &Init) -> bool {
        let rule = init_rule(shape, init, 0);
        if let Some(rule) = rule {
            self.fail(site, Kind::BadInit { init: format!("{init:?}"), shape: shape.clone(), rule });
            return false;
        }
        true
    }

    /// The input of a name.
    pub fn input(&mut self, site: Site, name: &str, ty: Type) -> Option<Local> {
        if !self.check_name(site, name) || !self.check_shape(site, &ty.shape) {
            return None;
        }
        let name = join_name(&self.scopes, name);
        if let Some(known) = self.known_input(&name) {
            let node = self.program.graph.node(known.value);
            if node.ty != ty {
                let kind = Kind::InputChanged { name, first: node.ty.clone(), again: ty, place: Place(node.location) };
                self.fail(site, kind);
                return None;
            }
            return Some(Local { frame: 0, value: known.value });
        }
        if let Some(parameter) = self.known_parameter(&name) {
            let first = Place(self.program.graph.node(parameter.value).location);
            self.fail(site, Kind::NameTaken { role: "an input", name, taken: "a parameter", first });
            return None;
        }
        self.program.graph.location = Some(site);
        let value = self.program.graph.leaf(Op::Input(name.clone()), ty);
        self.declared.inputs.insert(name.clone(), self.program.inputs.len());
        self.program.inputs.push(Input { name, value, bound: None });
        Some(Local { frame: 0, value })
    }
}

/// `parameters are `a`, `b``, for an error about a name that is none of them.
pub(super) fn list_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    if names.is_empty() { format!("there are no {what}") } else { format!("{what} are {}", names.join(", ")) }
}
pub(super) fn join_name(scopes: &[String], name: &str) -> String {
    scopes.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
}

/// The rule that an initialiser breaks, if any.
fn init_rule(shape: &Shape, init: &Init, depth: usize) -> Option<String> {
    match init {
        Init::Constant(x) if !x.is_finite() => Some("the value must be finite".to_string()),
        Init::Uniform(low, high) if !(low.is_finite() && high.is_finite() && low < high) => {
            Some("both ends must be finite, the low one below the high one".to_string())
        }
        Init::Normal(deviation) if !(deviation.is_finite() && *deviation >= 0.0) => {
            Some("the standard deviation must be finite and not negative".to_string())
        }
        Init::Orthogonal(gain) if !gain.is_finite() => Some("the gain must be finite".to_string()),
        Init::Orthogonal(_) if shape.rank() < 2 => Some("an orthogonal matrix has at least two dimensions".to_string()),
        Init::Pieces(_) if depth > Init::MAX_DEPTH => {
            Some(format!("pieces are nested at most {} deep", Init::MAX_DEPTH))
        }
        Init::Pieces(pieces) => {
            let n = shape.last();
            if pieces.is_empty() || shape.rank() == 0 || !n.is_multiple_of(pieces.len()) {
                return Some(format!("the last dimension must divide into {} equal pieces", pieces.len()));
            }
            let piece = shape.with_last(n / pieces.len());
            pieces.iter().find_map(|init| init_rule(&piece, init, depth + 1))
        }
        _ => None,
    }
}
