//! Tensors that know their element type: what is held for a program from run to run, and kept in files.
//!
//! A compiled program holds floats of its own width, and 32-bit integers. Whoever copies such values asks here which
//! of them they are, so that none is ever read as another.

use ndarray::ArrayD;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor of one of the element types that are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Weights, moments, states.
    F32(ArrayD<f32>),
    /// The same of a run in 64 bits.
    F64(ArrayD<f64>),
    /// Labels and indices.
    I32(ArrayD<i32>),
    /// Counters and seeds.
    U64(ArrayD<u64>),
}

/// An element type of a [`Tensor`], and of what a compiled program holds.
pub trait Item: Copy + Sized {
    /// Name in texts.
    const NAME: &'static str;
    /// The tensor of such elements.
    fn wrap(array: ArrayD<Self>) -> Tensor;
    /// The elements, if they are of this type; the tensor again if not.
    ///
    /// # Errors
    /// The tensor, of another element type.
    fn unwrap(tensor: Tensor) -> Result<ArrayD<Self>, Tensor>;
    /// As [`unwrap`](Item::unwrap), without taking them.
    fn of(tensor: &Tensor) -> Option<&ArrayD<Self>>;
}

macro_rules! elements {
    ($($element:ident $variant:ident),*) => {
        $(impl Item for $element {
            const NAME: &'static str = stringify!($element);
            fn wrap(array: ArrayD<$element>) -> Tensor {
                Tensor::$variant(array)
            }
            fn unwrap(tensor: Tensor) -> Result<ArrayD<$element>, Tensor> {
                match tensor {
                    Tensor::$variant(array) => Ok(array),
                    other => Err(other),
                }
            }
            fn of(tensor: &Tensor) -> Option<&ArrayD<$element>> {
                match tensor {
                    Tensor::$variant(array) => Some(array),
                    _ => None,
                }
            }
        })*

        impl Tensor {
            /// Dimensions.
            pub fn shape(&self) -> &[usize] {
                match self {
                    $(Tensor::$variant(a) => a.shape(),)*
                }
            }

            /// Name of the element type.
            pub fn element(&self) -> &'static str {
                match self {
                    $(Tensor::$variant(_) => $element::NAME,)*
                }
            }

            pub(crate) fn dtype(&self) -> Dtype {
                match self {
                    $(Tensor::$variant(_) => Dtype::$variant,)*
                }
            }

            /// Items in row-major order, little-endian.
            pub(crate) fn bytes(&self) -> Vec<u8> {
                match self {
                    $(Tensor::$variant(a) => a.iter().flat_map(|x| x.to_le_bytes()).collect(),)*
                }
            }

            /// `None` for element types that are not kept. The view's bytes are as many as its shape asks for.
            pub(crate) fn from_view(view: &TensorView) -> Option<Tensor> {
                Some(match view.dtype() {
                    $(Dtype::$variant => {
                        let (values, rest) = view.data().as_chunks();
                        assert!(rest.is_empty(), "safetensors checks the length of tensors");
                        let values = values.iter().map(|&b| $element::from_le_bytes(b)).collect();
                        let array = ArrayD::from_shape_vec(view.shape(), values);
                        Tensor::$variant(array.expect("safetensors checks the length of tensors"))
                    })*
                    _ => return None,
                })
            }
        }
    };
}
elements!(f32 F32, f64 F64, i32 I32, u64 U64);
